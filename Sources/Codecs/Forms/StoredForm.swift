public import Tensors

/// Which form a matrix is stored in and with what settings: all that, beside the components, a reader
/// needs to build the weight again. As JSON an object with a `kind` and the settings under their
/// names:
///
///     {"kind": "sum", "parts": [{"kind": "bilevel", "bits": 3, …}, {"kind": "sparse"}]}
public indirect enum StoredForm: Sendable, Hashable {
  /// `{"kind": "dense"}`: one tensor `weight`.
  case dense
  /// `{"kind": "affine", "bits", "group_size" (-1: a row, 0: the whole tensor), "symmetric",
  /// "scale_dtype", "layout", "short_last_group"}`: see `AffineGroups`.
  case affine(AffineGroups)
  /// `{"kind": "float", "format", "group_size" (as for affine), "scale_dtype"}`: see `FloatGroups`.
  case float(FloatGroups)
  /// `{"kind": "nf4"}`: see `NF4`; block sizes are stored with the matrix.
  case nf4
  /// `{"kind": "low-rank"}`: see `LowRankWeight`.
  case lowRank
  /// `{"kind": "sparse"}`: see `SparseWeight`.
  case sparse
  /// `{"kind": "binary"}`: see `BinaryWeight`.
  case binary
  /// `{"kind": "ternary", "packing": "bits" or "digits", "group_size"}`: see `TernaryWeight`.
  case ternary(packing: TernaryWeight.Packing, groupSize: Int)
  /// `{"kind": "bilevel", "bits", "group_size", "level_bits", "level_rows"}`: see `BilevelWeight`.
  case bilevel(BilevelWeight.Settings)
  /// `{"kind": "mixed-int8", "threshold"}`: see `MixedInt8Weight`; the threshold is for activations
  /// where no outlier columns are stored.
  case mixedInt8(threshold: Float)
  /// `{"kind": "sum", "parts": [...]}`: see `SumWeight`.
  case sum([StoredForm])

  /// The form of a weight; nil for weights of forms not listed here.
  public init?(of weight: any StoredWeight) {
    switch weight {
    case is DenseWeight: self = .dense
    case let weight as GroupQuantizedWeight: self = .affine(weight.codec)
    case let weight as FloatGroupsWeight: self = .float(weight.codec)
    case is NF4Weight: self = .nf4
    case is LowRankWeight: self = .lowRank
    case is SparseWeight: self = .sparse
    case is BinaryWeight: self = .binary
    case let weight as TernaryWeight:
      self = .ternary(packing: weight.packing, groupSize: weight.groupSize)
    case let weight as BilevelWeight: self = .bilevel(weight.settings)
    case let weight as MixedInt8Weight:
      if case .above(let threshold) = weight.outliers {
        self = .mixedInt8(threshold: threshold)
      } else {
        self = .mixedInt8(threshold: MixedInt8Weight.defaultThreshold)
      }
    case let weight as SumWeight:
      let forms = weight.parts.map(StoredForm.init(of:))
      let known = forms.compactMap { $0 }
      guard known.count == forms.count else { return nil }
      self = .sum(known)
    default: return nil
    }
  }

  /// The name of the form in JSON.
  public var kind: String {
    switch self {
    case .dense: "dense"
    case .affine: "affine"
    case .float: "float"
    case .nf4: "nf4"
    case .lowRank: "low-rank"
    case .sparse: "sparse"
    case .binary: "binary"
    case .ternary: "ternary"
    case .bilevel: "bilevel"
    case .mixedInt8: "mixed-int8"
    case .sum: "sum"
    }
  }

  /// Bits of a weight's own code, scales and all that stands beside it not counted.
  public var codeBits: Int {
    switch self {
    case .dense, .lowRank, .sparse: 16
    case .affine(let codec): codec.bits
    case .float(let codec): codec.bits
    case .nf4: 4
    case .binary: 1
    case .ternary: 2
    case .bilevel(let settings): settings.bits
    case .mixedInt8: 8
    case .sum(let parts): parts.first?.codeBits ?? 16
    }
  }

  /// Builds a weight from its components, each checked.
  public func decode(_ components: [String: Tensor]) throws(CodecError) -> any StoredWeight {
    switch self {
    case .dense:
      guard let tensor = components["weight"] else { throw .missing(component: "weight") }
      if let stray = components.keys.sorted().first(where: { $0 != "weight" }) {
        throw .unexpected(component: stray)
      }
      guard tensor.shape.count == 2, tensor.dtype.isFloatingPoint else {
        throw .unsupportedShape(shape: tensor.shape, dtype: tensor.dtype)
      }
      return DenseWeight(tensor)
    case .affine(let codec): return try codec.decode(components)
    case .float(let codec): return try codec.decode(components)
    case .nf4: return try NF4.qlora.decode(components)
    case .lowRank: return try LowRankWeight.decode(components)
    case .sparse: return try SparseWeight.decode(components)
    case .binary: return try BinaryWeight.decode(components)
    case .ternary(let packing, let groupSize):
      return try TernaryWeight.decode(components, packing: packing, groupSize: groupSize)
    case .bilevel(let settings): return try BilevelWeight.decode(components, settings)
    case .mixedInt8(let threshold):
      return try MixedInt8Weight(components: components, threshold: threshold)
    case .sum(let forms):
      var parts: [any StoredWeight] = []
      for (form, own) in zip(forms, try SumWeight.split(components, count: forms.count)) {
        parts.append(try form.decode(own))
      }
      return try SumWeight(parts)
    }
  }
}

extension StoredForm {
  /// Name, type and shape of a component. A nil side depends on the data; types are those that may
  /// stand there.
  public struct Component: Sendable, Hashable {
    public let suffix: String
    public let types: [DType]
    public let shape: [Int?]
    /// Whether it may be absent.
    public let isOptional: Bool

    init(_ suffix: String, _ types: [DType], _ shape: [Int?], isOptional: Bool = false) {
      self.suffix = suffix
      self.types = types
      self.shape = shape
      self.isOptional = isOptional
    }
  }

  /// What a matrix `[outputs, inputs]` in this form is stored as.
  public func components(outputs: Int, inputs: Int) -> [Component] {
    let numbers = FormNumbers.types
    switch self {
    case .dense:
      return [
        Component("weight", DType.allCases.filter(\.isFloatingPoint), [outputs, inputs])
      ]
    case .affine(let codec):
      return codec.componentShapes(outputs: outputs, inputs: inputs).map {
        Component($0.suffix, [$0.dtype], $0.shape)
      }
    case .float(let codec):
      return codec.componentShapes(outputs: outputs, inputs: inputs).map {
        Component($0.suffix, [$0.dtype], $0.shape)
      }
    case .nf4:
      let quantized = ["weight.nested_absmax", "weight.nested_quant_map"]
      return NF4.componentSuffixes.map {
        Component($0, DType.allCases, [nil], isOptional: quantized.contains($0))
      }
    case .lowRank:
      return [
        Component(LowRankWeight.Suffix.left, numbers, [outputs, nil]),
        Component(LowRankWeight.Suffix.right, numbers, [nil, inputs]),
      ]
    case .sparse:
      return [
        Component(SparseWeight.Suffix.shape, [.int64], [2]),
        Component(SparseWeight.Suffix.offsets, [.int32], [outputs + 1]),
        Component(
          SparseWeight.Suffix.columns, [SparseWeight.columnType(inputs: inputs)], [nil]),
        Component(SparseWeight.Suffix.values, numbers, [nil]),
      ]
    case .binary:
      return [
        Component(BinaryWeight.Suffix.signs, [.uint8], [nil, outputs, (inputs + 7) / 8]),
        Component(BinaryWeight.Suffix.scales, numbers, [nil, outputs, nil]),
        Component(BinaryWeight.Suffix.offsets, [.int32], [nil]),
        Component(BinaryWeight.Suffix.order, [.int32], [inputs], isOptional: true),
        Component(BinaryWeight.Suffix.factors, numbers, [inputs], isOptional: true),
      ]
    case .ternary(let packing, let groupSize):
      return [
        Component(TernaryWeight.Suffix.codes, [.uint8], [outputs, packing.stride(inputs: inputs)]),
        Component(
          TernaryWeight.Suffix.scales, numbers,
          [outputs, TernaryWeight.groupCount(inputs: inputs, groupSize: groupSize)]),
        Component(TernaryWeight.Suffix.shape, [.int64], [2]),
      ]
    case .bilevel(let settings):
      let groups = settings.groupCount(inputs: inputs)
      let stride = settings.levelStride(outputs: outputs)
      let levels = [groups, settings.levelCount(outputs: outputs), 2]
      return [
        Component(
          BilevelWeight.Suffix.codes, [.uint8], [outputs, settings.codeStride(inputs: inputs)]),
        Component(BilevelWeight.Suffix.scaleCodes, [.uint8], [groups, stride]),
        Component(BilevelWeight.Suffix.zeroCodes, [.uint8], [groups, stride]),
        Component(BilevelWeight.Suffix.scaleLevels, numbers, levels),
        Component(BilevelWeight.Suffix.zeroLevels, numbers, levels),
        Component(BilevelWeight.Suffix.shape, [.int64], [2]),
        Component(BilevelWeight.Suffix.order, [.int32], [inputs], isOptional: true),
      ]
    case .mixedInt8:
      return [
        Component("weight", [.int8], [outputs, inputs]),
        Component("weight_scale", [.float32], [outputs, 1]),
        Component("weight_outlier_columns", [.int32], [nil], isOptional: true),
        Component("weight_outliers", [.float16, .bfloat16], [outputs, nil], isOptional: true),
      ]
    case .sum(let forms):
      return forms.enumerated().flatMap { index, form in
        form.components(outputs: outputs, inputs: inputs).map {
          Component(
            SumWeight.prefix(index) + $0.suffix, $0.types, $0.shape, isOptional: $0.isOptional)
        }
      }
    }
  }
}
