/// Sizes as people write them.
public enum ByteCount {
  /// `5GB` (10⁹), `512MiB` (2²⁰), `1000`; nil for anything else.
  public static func parse(_ text: String) -> Int? {
    let units: [(String, Double)] = [
      ("gib", 0x1p30), ("mib", 0x1p20), ("kib", 0x1p10), ("gb", 1e9), ("mb", 1e6), ("kb", 1e3),
      ("b", 1), ("", 1),
    ]
    let lower = text.lowercased()
    for (suffix, factor) in units where lower.hasSuffix(suffix) {
      let number = lower.dropLast(suffix.count).filter { $0 != " " }
      guard let value = Double(number), value * factor >= 1, value * factor < 9e18 else {
        return nil
      }
      return Int(value * factor)
    }
    return nil
  }
}
