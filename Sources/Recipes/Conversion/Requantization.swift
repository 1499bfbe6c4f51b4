import Codecs
import Tensors

/// How a matrix is rounded anew for a target that has no place for its grid: to the nearest, on the
/// target's own grid nearest to the old one.
struct Requantization: Equatable {
  var bits: Int
  var groupSize: Int?
  var isSymmetric: Bool
  var scaleType: DType

  /// - Parameters:
  ///   - groupSize: of the whole model, where the target has but one.
  /// - Returns: nil where no group divides the columns.
  init?(
    of weight: any StoredWeight, for target: QuantizedTarget, groupSize modelGroup: Int??,
    scaleType stated: DType?
  ) {
    var scales = stated ?? .float16
    var length = 128
    var old = Int((weight.bitsPerWeight).rounded(.down))
    var symmetric = true
    if let groups = weight as? GroupQuantizedWeight {
      old = groups.codec.bits
      symmetric = groups.codec.isSymmetric
      length = groups.codec.groupSize(inputs: groups.inputs)
      scales = stated ?? groups.codec.scaleType
    } else if let biased = weight as? BiasedGroupWeight {
      (old, symmetric, length) = (biased.bits, false, biased.groupSize)
      scales = stated ?? biased.biases.dtype
    } else if weight is BlockQuantizedWeight {
      length = 32
    }
    bits = target.bits(atLeast: max(2, old))
    let isGPTQ = target == .gptq || target == .gptqV2
    if target == .awq || isGPTQ && scales == .float32 { scales = .float16 }
    scaleType = scales
    // A zero point of 0, which version 1 has no field for, cannot arise then.
    isSymmetric = target == .gptq || symmetric
    if let modelGroup {
      groupSize = modelGroup
      guard weight.inputs % (modelGroup ?? weight.inputs) == 0 else { return nil }
      return
    }
    let sizes = [128, 64, 32, 16].filter {
      $0 <= max(length, 32) && weight.inputs % $0 == 0 && (target != .mlx || $0 >= 32)
    }
    guard let size = sizes.first ?? (target == .mlx ? nil : 0) else { return nil }
    groupSize = size == 0 ? nil : size
  }

  var codec: AffineGroups {
    get throws(CodecError) {
      try AffineGroups(
        bits: bits, granularity: groupSize.map { .group($0) } ?? .channel,
        isSymmetric: isSymmetric, scaleType: scaleType)
    }
  }

  func apply(_ weight: any StoredWeight) throws(CodecError)
    -> (weight: GroupQuantizedWeight, error: EncodingError)
  {
    try codec.encode(weight.dequantized(), choosing: .range)
  }
}
