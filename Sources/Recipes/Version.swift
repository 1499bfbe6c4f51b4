/// The version of this package, recorded in every output.
public enum PareVersion {
  public static let current = "0.1.0"
}
