import CKernels
public import Tensors

/// A matrix kept as small floating-point codes, multiplied straight from them: the expanded matrix
/// never exists, only tiles of it.
public struct FloatGroupsWeight: StoredWeight {
  public let codec: FloatGroups
  public let outputs: Int
  public let inputs: Int
  /// E4M3 `[outputs, inputs]`, or bytes of two codes `[outputs, inputs / 2]`; mapped or owned.
  package let codes: Tensor
  /// As stored: `codec.scaleShape`.
  package let scales: Tensor
  /// float32 `[1]` of nvfp4.
  package let globalScale: Tensor?
  /// What a scale's byte stands for, the global scale included; empty where scales are numbers.
  private let scaleOfByte: [Float]

  init(
    codec: FloatGroups, outputs: Int, inputs: Int, codes: Tensor, scales: Tensor,
    globalScale: Tensor?
  ) {
    self.codec = codec
    self.outputs = outputs
    self.inputs = inputs
    self.codes = codes
    self.scales = scales
    self.globalScale = globalScale
    switch codec.format {
    case .float8: scaleOfByte = []
    case .mxfp4:
      scaleOfByte = (0..<256).map { Float(sign: .plus, exponent: $0 - 127, significand: 1) }
    case .nvfp4:
      let global = globalScale?.array.first ?? 1
      scaleOfByte = FloatGroups.e4m3Values.map { $0 / global }
    }
  }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    let suffix =
      codec.format == .float8 ? FloatGroups.Suffix.weight : FloatGroups.Suffix.packed
    return [(suffix, codes), (FloatGroups.Suffix.scale, scales)]
      + (globalScale.map { [(FloatGroups.Suffix.globalScale, $0)] } ?? [])
  }

  /// What a group's codes are multiplied by.
  package func scale(row: Int, group: Int) -> Float {
    let index =
      codec.granularity == .tensor ? 0 : row * codec.groupCount(inputs: inputs) + group
    if !scaleOfByte.isEmpty {
      return scaleOfByte[Int(scales.rawPointer.load(fromByteOffset: index, as: UInt8.self))]
    }
    var scale: Float = 0
    pare_affine_load(
      scales.rawPointer + index * codec.scaleType.byteCount, 1, codec.scaleType.affineType, &scale)
    return scale
  }

  public func multiply(_ x: Tensor) -> Tensor { recordingInput(x, openedProduct(x)) }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    let (group, groups) = (codec.groupSize(inputs: inputs), codec.groupCount(inputs: inputs))
    let rowBytes = pare_float_bytes(codec.kind, inputs)
    let bytes = codes.rawPointer.assumingMemoryBound(to: UInt8.self)
    for row in range {
      let values = target + (row - range.lowerBound) * inputs
      for index in 0..<groups {
        let start = index * group
        let count = min(group, inputs - start)
        guard count > 0 else { continue }
        pare_float_decode(
          codec.kind, bytes + row * rowBytes + pare_float_bytes(codec.kind, start), count,
          scale(row: row, group: index), values + start)
      }
    }
  }

  public func giveBack() {
    codes.giveBack()
    scales.giveBack()
  }
}

extension FloatGroups {
  /// The numbers of all E4M3 codes.
  static let e4m3Values: [Float] = {
    let codes = (0...255).map { UInt8($0) }
    var values = [Float](repeating: 0, count: 256)
    pare_float_decode(PARE_FLOAT_E4M3, codes, 256, 1, &values)
    return values
  }()
}
