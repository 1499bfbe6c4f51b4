package import Checkpoints
import Codecs
package import Models
package import Tensors

extension Plan {
  /// The compressed-tensors description of the planned output; nil when nothing is quantized.
  package func layout() throws(ModelError) -> CompressedTensors? {
    var modules: [(tensor: ModelTensor, scheme: CompressedTensors.Scheme?)] = []
    for row in rows {
      if case .drop = row.action { continue }
      var stored = row.tensor
      stored.name = row.name
      guard case .quantize(let codec, let stage) = row.action else {
        modules.append((stored, nil))
        continue
      }
      var scheme = CompressedTensors.Scheme(codec)
      if let floats = stage.format.floats,
        let codec = stage.floatCodec(floats, scaleType: codec.scaleType)
      {
        scheme = CompressedTensors.Scheme(codec)
      }
      // Head and embedding are no layers that round their input.
      if row.tensor.block != nil { scheme.activations = stage.activationScheme }
      modules.append((stored, scheme))
    }
    return try CompressedTensors(
      describing: modules, tiedHead: hasTiedHead ? headName : nil)
  }
}

extension Plan.Row {
  /// Scales are stored in the model's own type.
  package var scaleType: DType {
    switch dtype {
    case .bfloat16, .float16: dtype
    default: .float32
    }
  }

  /// What this row writes, in order.
  package var outputs: [TensorDeclaration] {
    switch action {
    case .drop: []
    case .keep: [TensorDeclaration(name: name, dtype: dtype, shape: tensor.shape)]
    case .quantize(let codec, let stage):
      (stage.format.floats.flatMap { stage.floatCodec($0, scaleType: codec.scaleType) }?
        .componentShapes(outputs: tensor.outputs, inputs: tensor.inputs)
        ?? codec.componentShapes(outputs: tensor.outputs, inputs: tensor.inputs)).map {
          TensorDeclaration(name: "\(module).\($0.suffix)", dtype: $0.dtype, shape: $0.shape)
        }
    }
  }
}

extension CompressedTensors.Scheme {
  fileprivate init(_ codec: AffineGroups) {
    self.init(
      format: codec.layout, bits: codec.bits, isSymmetric: codec.isSymmetric,
      granularity: codec.granularity)
  }
}

extension TensorDeclaration {
  var byteCount: Int { shape.reduce(dtype.byteCount, *) }
}
