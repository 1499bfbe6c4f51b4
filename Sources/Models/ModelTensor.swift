/// A tensor that a configuration calls for: what loading checks, `inspect` lists and a plan decides
/// on, row by row.
public struct ModelTensor: Sendable {
  /// Name in the checkpoint, with the base prefix.
  public var name: String
  public var shape: [Int]
  public var role: Role
  /// Index of the block it belongs to; `nil` outside the blocks.
  public var block: Int?
  /// Stored `[in, out]`.
  public var isTransposed = false

  package init(
    name: String, shape: [Int], role: Role, block: Int? = nil, isTransposed: Bool = false
  ) {
    self.name = name
    self.shape = shape
    self.role = role
    self.block = block
    self.isTransposed = isTransposed
  }

  /// The module path: the name without `.weight` or `.bias`.
  public var module: String {
    for suffix in [".weight", ".bias"] where name.hasSuffix(suffix) {
      return String(name.dropLast(suffix.count))
    }
    return name
  }

  public var isMatrix: Bool { shape.count == 2 }
  public var count: Int { shape.reduce(1, *) }

  /// `[out, in]` of a matrix as the computation sees it.
  public var outputs: Int { isTransposed ? shape[1] : shape[0] }
  public var inputs: Int { isTransposed ? shape[0] : (shape.count > 1 ? shape[1] : 1) }
}

extension ModelConfiguration {
  /// Every tensor of the model in the order of computation. A tied head has none of its own.
  public var tensors: [ModelTensor] {
    var list: [ModelTensor] = []
    list.append(
      ModelTensor(
        name: "\(embedding.name).weight", shape: [vocabularySize, embedding.width],
        role: .embedding))
    if let positions = embedding.positions {
      list.append(
        ModelTensor(
          name: "\(positions.name).weight",
          shape: [positions.count + positions.offset, hiddenSize], role: .positionEmbedding))
    }
    if let norm = embedding.norm { list += norm.tensors(block: nil) }
    if let projection = embedding.projection { list += projection.tensors(block: nil) }
    for (index, block) in blocks.enumerated() {
      for norm in block.norms { list += norm.tensors(block: index) }
      for linear in block.linears { list += linear.tensors(block: index) }
    }
    if let finalNorm { list += finalNorm.tensors(block: nil) }
    if let projection = head.projection { list += projection.tensors(block: nil) }
    if !head.isTied {
      list.append(
        ModelTensor(
          name: "\(head.name).weight", shape: [vocabularySize, embedding.width], role: .head))
    }
    return list
  }
}

extension BlockConfiguration {
  /// All matrices in the order of computation.
  public var linears: [LinearConfiguration] {
    attention.inputs + [attention.output] + feedForward.inputs + [feedForward.down]
  }

  public var norms: [NormConfiguration] {
    [
      attentionNorms.before, attention.queryNorm, attention.keyNorm, attentionNorms.output,
      attentionNorms.after, feedForwardNorms.before, feedForwardNorms.output,
      feedForwardNorms.after,
    ].compactMap { $0 }
  }
}

extension LinearConfiguration {
  package func tensors(block: Int?) -> [ModelTensor] {
    let weight = ModelTensor(
      name: "\(name).weight", shape: isTransposed ? [inputs, outputs] : [outputs, inputs],
      role: role, block: block, isTransposed: isTransposed)
    let bias = ModelTensor(
      name: "\(name).bias", shape: [outputs], role: .bias, block: block)
    return hasBias ? [weight, bias] : [weight]
  }
}

extension NormConfiguration {
  package func tensors(block: Int?) -> [ModelTensor] {
    var list: [ModelTensor] = []
    let (hasWeight, hasBias) =
      switch kind {
      case .rootMeanSquare: (true, false)
      case .layer(let hasBias, let hasWeight): (hasWeight, hasBias)
      }
    if hasWeight {
      list.append(
        ModelTensor(name: "\(name).weight", shape: [width], role: .norm, block: block))
    }
    if hasBias {
      list.append(
        ModelTensor(name: "\(name).bias", shape: [width], role: .norm, block: block))
    }
    return list
  }
}
