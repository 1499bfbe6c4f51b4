import Codecs
import Models
import Tensors
import Text

/// A layout of quantized safetensors that other programs open.
public enum QuantizedTarget: String, Sendable, CaseIterable {
  case compressedTensors = "compressed-tensors"
  /// Version 1: zero points are stored less one.
  case gptq
  case gptqV2 = "gptq-v2"
  case awq
  case mlx

  /// Whether a model without any quantized matrix is one of the target's too.
  var allowsDenseModels: Bool { self == .mlx }

  /// Whether a matrix of this role may be quantized there; else it is opened.
  func holds(_ role: Role) -> Bool {
    switch self {
    case .compressedTensors, .mlx: true
    case .gptq, .gptqV2: role != .embedding
    case .awq: role.isBlockLinear
    }
  }

  /// Bits that the target has, from at least as many as the source had.
  func bits(atLeast bits: Int) -> Int {
    switch self {
    case .awq: 4
    case .gptq, .gptqV2: GPTQLayout.supportedBits.first { $0 >= bits } ?? 8
    case .compressedTensors, .mlx: AffineGroups.supportedBits.first { $0 >= bits } ?? 8
    }
  }

  /// The layout of one grid.
  /// - Parameters:
  ///   - groupSize: of the whole model, where the target has but one.
  ///   - scaleType: stated by the user; nil for that of the source where the target has it.
  func layout(for grid: OpenGrid, groupSize: Int?, scaleType: DType?)
    throws(CodecError) -> any WritableLayout
  {
    switch self {
    case .compressedTensors:
      return CompressedTensorsLayout(scaleType: scaleType ?? grid.scales.dtype)
    case .gptq, .gptqV2:
      let type = scaleType ?? grid.scales.dtype
      return try GPTQLayout(
        bits: grid.bits, groupSize: grid.groupSize,
        zeroPoints: self == .gptq ? .minusOne : .plain,
        scaleType: type == .bfloat16 ? .bfloat16 : .float16)
    case .awq: return AWQLayout(groupSize: groupSize)
    case .mlx:
      guard let size = MLXLayout.groupSize(for: grid) else {
        throw .notRepresentable(
          "groups of \(grid.groupLength) in \(grid.inputs) columns are no whole groups of 32, 64 "
            + "or 128, which MLX has")
      }
      return try MLXLayout(
        bits: grid.bits, groupSize: size, scaleType: scaleType ?? grid.scales.dtype)
    }
  }
}

/// compressed-tensors written from a grid.
struct CompressedTensorsLayout: WritableLayout {
  var scaleType: DType
  /// Keeps the zero points of a symmetric grid: a model has one scheme where it can.
  var keepsZeroPoints = false

  var bits: Int { 0 }
  var summary: String { "compressed-tensors" }
  var requiredSuffixes: [String] { [] }
  var componentSuffixes: [String] { [] }

  func decode(components: [String: Tensor]) throws(CodecError) -> any StoredWeight {
    throw .unsupportedSetting("a scheme says how these components are read.")
  }

  func scheme(_ grid: OpenGrid) -> CompressedTensors.Scheme {
    CompressedTensors.Scheme(
      format: .packed, bits: grid.bits, isSymmetric: !keepsZeroPoints && grid.isSymmetric,
      granularity: grid.groupSize.map { .group($0) } ?? .channel,
      hasColumnOrder: grid.groupIndex != nil)
  }

  func plan(_ grid: OpenGrid) throws(CodecError) -> LayoutPlan {
    guard grid.inputs % (grid.groupSize ?? max(grid.inputs, 1)) == 0 else {
      throw .notRepresentable(
        "rows of \(grid.inputs) columns end in a group shorter than \(grid.groupSize ?? 0), which "
          + "compressed-tensors does not open")
    }
    let scheme = scheme(grid)
    var components = try scheme.codec(scaleType: scaleType)
      .componentShapes(outputs: grid.outputs, inputs: grid.inputs)
    if grid.groupIndex != nil { components.append(("weight_g_idx", .int32, [grid.inputs])) }
    let isExact = try grid.scales(as: scaleType).isExact
    return LayoutPlan(
      components: components,
      rounding: isExact ? nil : "scales rounded to \(scaleType.rawValue)")
  }

  func encode(_ grid: OpenGrid, codes: [UInt8])
    throws(CodecError) -> [(suffix: String, tensor: Tensor)]
  {
    var grid = grid
    grid.scales = try grid.scales(as: scaleType).tensor
    return try GroupQuantizedWeight(grid, codes: codes, isSymmetric: scheme(grid).isSymmetric)
      .encoded()
  }
}
