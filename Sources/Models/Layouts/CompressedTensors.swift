public import Codecs
package import Tensors
import Text

/// The `quantization_config` of compressed-tensors: which modules are quantized, and how.
/// Layout after vllm-project/compressed-tensors (`config`, `quantization/quant_args.py`).
public struct CompressedTensors: Sendable {
  /// How one matrix is stored.
  public struct Scheme: Sendable, Hashable {
    public var format: AffineGroups.Layout
    public var bits: Int
    public var isSymmetric: Bool
    public var granularity: AffineGroups.Granularity
    /// The format of floating-point codes; where there is one, it takes the place of `format`.
    public var floats: FloatGroups.Format?
    /// Whether groups follow an order of columns that is stored beside them (`weight_g_idx`).
    public var hasColumnOrder: Bool
    /// How the layer's input is rounded; nil: not at all.
    public var activations: ActivationScheme?

    public init(
      format: AffineGroups.Layout, bits: Int, isSymmetric: Bool,
      granularity: AffineGroups.Granularity, hasColumnOrder: Bool = false,
      activations: ActivationScheme? = nil
    ) {
      self.format = format
      self.bits = bits
      self.isSymmetric = isSymmetric
      self.granularity = granularity
      self.hasColumnOrder = hasColumnOrder
      self.activations = activations
    }

    /// Of a matrix in floating-point codes.
    public init(_ codec: FloatGroups) {
      self.init(
        format: .packed, bits: codec.bits, isSymmetric: true, granularity: codec.granularity)
      floats = codec.format
    }

    /// What `quantization_config` calls the format.
    public var formatName: String { floats?.rawValue ?? format.rawValue }

    /// The codec of one matrix of integers.
    /// - Parameter scaleType: as its scales are stored.
    package func codec(scaleType: DType) throws(CodecError) -> AffineGroups {
      try AffineGroups(
        bits: bits, granularity: granularity, isSymmetric: isSymmetric, scaleType: scaleType,
        layout: format)
    }

    /// Endings of the tensors that must stand in place of `weight`; those of activations are named by
    /// their own scheme.
    public var requiredSuffixes: [String] {
      switch floats {
      case .float8: return ["weight", "weight_scale"]
      case .nvfp4: return ["weight_packed", "weight_scale", "weight_global_scale"]
      case .mxfp4: return ["weight_packed", "weight_scale"]
      case nil: break
      }
      let weight =
        format == .packed
        ? ["weight_packed", "weight_scale", "weight_shape"] : ["weight", "weight_scale"]
      return weight + (isSymmetric ? [] : ["weight_zero_point"])
    }

    /// Endings that may stand there: some writers store the zeros of symmetric grids too, and
    /// an order of columns.
    public var componentSuffixes: [String] {
      guard floats == nil else { return requiredSuffixes }
      return requiredSuffixes + (isSymmetric ? ["weight_zero_point"] : []) + ["weight_g_idx"]
    }
  }

  public struct Group: Sendable {
    /// Class names (`Linear`), module names, or `re:` and a pattern.
    public var targets: [String]
    public var scheme: Scheme

    public init(targets: [String], scheme: Scheme) {
      self.targets = targets
      self.scheme = scheme
    }
  }

  /// A Hadamard matrix that modules' inputs are multiplied by at run time.
  public struct Transform: Sendable, Hashable {
    /// As a group's.
    public var targets: [String]
    public var ignore: [String]
    /// Neighbouring channels that are transformed together; nil for all of them.
    public var size: Int?

    public init(targets: [String], ignore: [String] = [], size: Int? = nil) {
      self.targets = targets
      self.ignore = ignore
      self.size = size
    }
  }

  public var groups: [Group]
  public var ignore: [String]
  /// In the order of `transform_config`.
  public let transforms: [Transform]
  private var patterns: [String: Pattern]

  /// - Throws: `ModelError.unsupportedQuantization` for a pattern that cannot be used.
  public init(
    groups: [Group], ignore: [String], transforms: [Transform] = []
  ) throws(ModelError) {
    self.groups = groups
    self.ignore = ignore
    self.transforms = transforms
    patterns = [:]
    let targets = groups.flatMap(\.targets) + transforms.flatMap { $0.targets + $0.ignore } + ignore
    for target in targets where target.hasPrefix("re:") {
      do {
        patterns[target] = try Pattern(String(target.dropFirst(3)))
      } catch {
        throw .unsupportedQuantization(reason: "\(target): \(error)", path: "config.json")
      }
    }
  }

  /// The same with the transforms of the model that was quantized.
  package func keeping(transformsOf other: (any Quantization)?) throws(ModelError)
    -> CompressedTensors
  {
    try CompressedTensors(groups: groups, ignore: ignore, transforms: other?.transforms ?? [])
  }

  /// The scheme of a module, `nil` where it stays dense. Names win over patterns, patterns over
  /// classes, as in compressed-tensors.
  public func scheme(forModule module: String, className: String = "Linear") -> Scheme? {
    if ignore.contains(where: { matches($0, module, className) }) { return nil }
    let kinds: [(String) -> Bool] = [
      { $0 == module },
      { $0.hasPrefix("re:") && self.matches($0, module, className) },
      { $0 == className },
    ]
    for kind in kinds {
      if let group = groups.first(where: { $0.targets.contains(where: kind) }) {
        return group.scheme
      }
    }
    return nil
  }

  /// How many neighbouring inputs of a module are transformed together; nil where none are.
  public func hadamardSize(forModule module: String, inputs: Int) -> Int? {
    transforms.first { transform in
      transform.targets.contains { matches($0, module, "Linear") }
        && !transform.ignore.contains { matches($0, module, "Linear") }
    }.map { $0.size ?? inputs }
  }

  private func matches(_ target: String, _ module: String, _ className: String) -> Bool {
    if let pattern = patterns[target] { return pattern.matchesPrefix(of: Array(module.utf8)) }
    return target == module || target == className
  }
}
