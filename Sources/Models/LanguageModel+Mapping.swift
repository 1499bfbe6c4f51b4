package import Tensors

extension LanguageModel {
  /// This model with its tensors replaced, in the order of computation: matrices through `matrix`,
  /// norms, biases and position tables through `vector`. A tied matrix is replaced once.
  package func mapped(
    matrix: (ModelTensor, any Weight) throws -> any Weight,
    vector: (ModelTensor, Tensor) throws -> Tensor = { $1 }
  ) rethrows -> LanguageModel {
    var model = self
    func replace(_ norm: inout Norm?, block: Int?) throws {
      guard var replaced = norm else { return }
      for declaration in replaced.configuration.tensors(block: block) {
        if declaration.name.hasSuffix(".bias") {
          replaced.bias = try replaced.bias.map { try vector(declaration, $0) }
        } else {
          replaced.weight = try replaced.weight.map { try vector(declaration, $0) }
        }
      }
      norm = replaced
    }
    func replace(_ linear: inout Linear, block: Int?) throws {
      let declarations = linear.configuration.tensors(block: block)
      linear.weight = try matrix(declarations[0], linear.weight)
      if let bias = linear.bias { linear.bias = try vector(declarations[1], bias) }
    }
    func replace(_ linear: inout Linear?) throws {
      guard var replaced = linear else { return }
      try replace(&replaced, block: nil)
      linear = replaced
    }

    let table = ModelTensor(
      name: "\(configuration.embedding.name).weight",
      shape: [configuration.vocabularySize, configuration.embedding.width], role: .embedding)
    model.embedding.table = try matrix(table, embedding.table)
    if let positions = embedding.positions, let learned = configuration.embedding.positions {
      model.embedding.positions = try vector(
        ModelTensor(
          name: "\(learned.name).weight", shape: positions.shape, role: .positionEmbedding),
        positions)
    }
    try replace(&model.embedding.norm, block: nil)
    try replace(&model.embedding.projection)
    for index in blocks.indices {
      try replace(&model.blocks[index].attentionNorms.before, block: index)
      for input in blocks[index].attentionInputs.indices {
        try replace(&model.blocks[index].attentionInputs[input], block: index)
      }
      try replace(&model.blocks[index].queryNorm, block: index)
      try replace(&model.blocks[index].keyNorm, block: index)
      try replace(&model.blocks[index].attentionOutput, block: index)
      try replace(&model.blocks[index].attentionNorms.output, block: index)
      try replace(&model.blocks[index].attentionNorms.after, block: index)
      try replace(&model.blocks[index].feedForwardNorms.before, block: index)
      for input in blocks[index].feedForwardInputs.indices {
        try replace(&model.blocks[index].feedForwardInputs[input], block: index)
      }
      try replace(&model.blocks[index].feedForwardOutput, block: index)
      try replace(&model.blocks[index].feedForwardNorms.output, block: index)
      try replace(&model.blocks[index].feedForwardNorms.after, block: index)
    }
    try replace(&model.finalNorm, block: nil)
    try replace(&model.headProjection)
    if configuration.head.isTied {
      model.head = model.embedding.table
    } else {
      var matrixDeclaration = table
      matrixDeclaration.name = "\(configuration.head.name).weight"
      matrixDeclaration.role = .head
      model.head = try matrix(matrixDeclaration, head)
    }
    return model
  }
}
