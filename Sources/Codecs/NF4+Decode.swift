public import Tensors
import Text

extension NF4 {
  /// Names that a matrix's components may have, after its module's path.
  public static let componentSuffixes = [
    Suffix.codes, Suffix.scales, Suffix.levels, Suffix.scaleScales, Suffix.scaleLevels,
    Suffix.state,
  ]

  /// Block size and double quantization are those of the file, which states them with the shape.
  public func decode(_ components: [String: Tensor]) throws(CodecError) -> NF4Weight {
    var rest = components
    func take(_ name: String, _ type: DType, count: Int?) throws(CodecError) -> Tensor {
      guard let tensor = rest.removeValue(forKey: name) else { throw .missing(component: name) }
      guard tensor.dtype == type else {
        throw .wrongType(component: name, expected: type.rawValue, actual: tensor.dtype)
      }
      if let count, tensor.count != count {
        throw .wrongShape(component: name, expected: [count], actual: tensor.shape)
      }
      return tensor
    }
    let state = try NF4State(try take(Suffix.state, .uint8, count: nil))
    var codec = self
    codec.blockSize = state.blockSize
    codec.isDoubleQuantized = state.offset != nil
    let count = state.outputs * state.inputs
    let blocks = codec.blockCount(count)
    let codes = try take(Suffix.codes, .uint8, count: (count + 1) / 2)
    let levels = try take(Suffix.levels, .float32, count: 16)
    guard levels.isIdentical(to: Tensor(Self.levels, shape: levels.shape)) else {
      throw .wrongValue(component: Suffix.levels, reason: "its levels are not those of NF4")
    }
    let scales: NF4Weight.Scales
    if let offset = state.offset {
      scales = .quantized(
        codes: try take(Suffix.scales, .uint8, count: blocks),
        levels: try take(Suffix.scaleLevels, .float32, count: 256),
        scales: try take(
          Suffix.scaleScales, .float32,
          count: (blocks + Self.scaleBlockSize - 1) / Self.scaleBlockSize),
        offset: offset)
    } else {
      scales = .plain(try take(Suffix.scales, .float32, count: blocks))
    }
    if let stray = rest.keys.min() { throw .unexpected(component: stray) }
    return NF4Weight(
      codec: codec, outputs: state.outputs, inputs: state.inputs, sourceType: state.sourceType,
      codes: codes, scales: scales)
  }
}

/// What bitsandbytes keeps beside a matrix as JSON in a tensor of bytes: its type, block sizes, shape,
/// and the mean of its scales.
struct NF4State {
  var blockSize: Int
  var sourceType: DType
  var outputs: Int
  var inputs: Int
  /// nil where the scales are not quantized.
  var offset: Float?

  private static let typeNames: [(DType, String)] = [
    (.float32, "float32"), (.bfloat16, "bfloat16"), (.float16, "float16"),
  ]

  init(of weight: NF4Weight) {
    blockSize = weight.codec.blockSize
    sourceType = weight.sourceType
    (outputs, inputs) = (weight.outputs, weight.inputs)
    if case .quantized(_, _, _, let offset) = weight.scales { self.offset = offset }
  }

  init(_ tensor: Tensor) throws(CodecError) {
    func damaged(_ reason: String) -> CodecError {
      .wrongValue(component: NF4.Suffix.state, reason: reason)
    }
    let json: JSON
    do {
      json = try JSON.parse(tensor.bytes, name: NF4.Suffix.state)
    } catch {
      throw damaged("it is not JSON")
    }
    guard json["quant_type"]?.string == "nf4" else { throw damaged("its quant_type is not nf4") }
    guard let blockSize = json["blocksize"]?.int, NF4.supportedBlockSizes.contains(blockSize) else {
      throw damaged("its blocksize is no power of two from 64 to 4096")
    }
    self.blockSize = blockSize
    let name = json["dtype"]?.string ?? ""
    guard let type = Self.typeNames.first(where: { $0.1 == name }) else {
      throw damaged("its dtype is \"\(name)\" and not float32, bfloat16 or float16")
    }
    sourceType = type.0
    let shape = (json["shape"]?.array ?? []).map { $0.int ?? -1 }
    guard shape.count == 2, let outputs = shape.first, let inputs = shape.last, outputs >= 0,
      inputs >= 0, inputs == 0 || outputs <= Int.max / 4 / inputs
    else { throw damaged("its shape is not that of a matrix") }
    (self.outputs, self.inputs) = (outputs, inputs)
    guard json["nested_blocksize"] != nil || json["nested_offset"] != nil else { return }
    guard json["nested_blocksize"]?.int == NF4.scaleBlockSize else {
      throw damaged("its nested_blocksize is not \(NF4.scaleBlockSize)")
    }
    guard json["nested_dtype"]?.string == "float32" else {
      throw damaged("its nested_dtype is not float32")
    }
    guard let offset = json["nested_offset"]?.double, Float(offset).isFinite else {
      throw damaged("its nested_offset is no finite number")
    }
    self.offset = Float(offset)
  }

  /// The spelling of Python's `json.dumps`, so that equal states are equal bytes.
  var tensor: Tensor {
    let name = Self.typeNames.first { $0.0 == sourceType }?.1 ?? "float32"
    var text =
      "{\"quant_type\": \"nf4\", \"blocksize\": \(blockSize), \"dtype\": \"\(name)\", "
      + "\"shape\": [\(outputs), \(inputs)]"
    if let offset {
      text +=
        ", \"nested_blocksize\": \(NF4.scaleBlockSize), \"nested_dtype\": \"float32\", "
        + "\"nested_offset\": \(Double(offset))"
    }
    let bytes = Array((text + "}").utf8)
    return Tensor(dtype: .uint8, shape: [bytes.count]) { $0.copyBytes(from: bytes) }
  }
}
