public import Tensors

extension FloatGroups {
  /// Types and granularity are those of the codec; the shape is read from the codes.
  public func decode(_ components: [String: Tensor]) throws(CodecError) -> FloatGroupsWeight {
    var rest = components
    func take(_ name: String, _ type: DType) throws(CodecError) -> Tensor {
      guard let tensor = rest.removeValue(forKey: name) else { throw .missing(component: name) }
      guard tensor.dtype == type else {
        throw .wrongType(component: name, expected: type.rawValue, actual: tensor.dtype)
      }
      return tensor
    }
    let name = format == .float8 ? Suffix.weight : Suffix.packed
    let codes = try take(name, format == .float8 ? .float8e4m3 : .uint8)
    guard codes.shape.count == 2, codes.columns <= Int.max / 4 else {
      throw .wrongShape(component: name, expected: [0, 0], actual: codes.shape)
    }
    let (outputs, inputs) = (codes.rows, format == .float8 ? codes.columns : codes.columns * 2)
    if case .group(let size) = granularity, inputs % size != 0 {
      throw .groupDoesNotDivide(inputs: inputs, groupSize: size)
    }
    let scales = try take(Suffix.scale, scaleType)
    let shape = scaleShape(outputs: outputs, inputs: inputs)
    // One scale of a tensor or of each channel may lack its last dimension.
    guard
      scales.shape == shape || granularity == .tensor && scales.shape.isEmpty
        || granularity == .channel && scales.shape == [outputs]
    else { throw .wrongShape(component: Suffix.scale, expected: shape, actual: scales.shape) }
    var global: Tensor?
    if format == .nvfp4 {
      let tensor = try take(Suffix.globalScale, .float32)
      guard tensor.count == 1 else {
        throw .wrongShape(component: Suffix.globalScale, expected: [1], actual: tensor.shape)
      }
      let value = tensor.widened().floats[0]
      guard value.isFinite, value > 0 else {
        throw .wrongValue(component: Suffix.globalScale, reason: "it is no number above 0")
      }
      global = tensor.widened()
    }
    if let stray = rest.keys.min() { throw .unexpected(component: stray) }
    let areNumbers =
      switch format {
      case .float8: scales.widened().array.allSatisfy(\.isFinite)
      case .nvfp4: scales.bytes.allSatisfy { $0 & 0x7f != 0x7f }
      case .mxfp4: scales.bytes.allSatisfy { $0 != 0xff }
      }
    guard areNumbers else {
      throw .wrongValue(component: Suffix.scale, reason: "a scale is NaN or infinite")
    }
    return FloatGroupsWeight(
      codec: self, outputs: outputs, inputs: inputs, codes: codes,
      scales: scales.reshaped(shape), globalScale: global)
  }
}
