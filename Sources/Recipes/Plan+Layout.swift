package import Checkpoints
import Codecs
package import Models
package import Tensors

extension Plan {
  /// The compressed-tensors description of the planned output; nil when nothing is quantized.
  package func layout() throws(ModelError) -> CompressedTensors? {
    var byScheme: [(scheme: CompressedTensors.Scheme, modules: [String])] = []
    for row in rows {
      guard case .quantize(let codec, let stage) = row.action else { continue }
      var scheme = CompressedTensors.Scheme(codec)
      if let floats = stage.format.floats,
        let codec = stage.floatCodec(floats, scaleType: codec.scaleType)
      {
        scheme = CompressedTensors.Scheme(codec)
      }
      // Head and embedding are no layers that round their input.
      if row.tensor.block != nil { scheme.activations = stage.activationScheme }
      if let index = byScheme.firstIndex(where: { $0.scheme == scheme }) {
        byScheme[index].modules.append(row.module)
      } else {
        byScheme.append((scheme, [row.module]))
      }
    }
    guard !byScheme.isEmpty else { return nil }
    // Readers walk their own Linear layers: every one left dense must be on the ignore list, also
    // a head that shares the embedding's matrix.
    let ignored = rows.filter { !$0.isQuantized && $0.tensor.isLinearLayer }.map(\.module)
    let areAllLinear = rows.allSatisfy { !$0.isQuantized || $0.tensor.isLinearLayer }
    if byScheme.count == 1, areAllLinear {
      return try CompressedTensors(
        groups: [.init(targets: ["Linear"], scheme: byScheme[0].scheme)],
        ignore: ignored + (hasTiedHead ? [headName] : []))
    }
    return try CompressedTensors(
      groups: byScheme.map { .init(targets: $0.modules, scheme: $0.scheme) }, ignore: ignored)
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
