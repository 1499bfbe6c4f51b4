import CKernels
import LinearAlgebra
package import Models
package import Tensors

/// `QuaRot` resolved against a model: what becomes of each tensor, one at a time.
package struct ModelRotation {
  /// A side of a matrix, and what it is multiplied by.
  private enum Side {
    case none
    case residual
    /// Every run of `headDim` channels, by the block's own rotation.
    case heads(block: Int)
    /// The rows of the values, head by head.
    case values(block: Int, BlockStructure.Axis)
    /// Every run of this many channels, by Sylvester's matrix.
    case runs(of: Int)
  }

  private enum Change {
    case matrix(scale: [Float]? = nil, inputs: Side = .none, outputs: Side = .none)
    /// A bias, plus the product of a matrix with a vector.
    case bias(adding: (matrix: ModelTensor, vector: [Float])? = nil, outputs: Side = .none)
    case constant(Float)
    case vector([Float])
  }

  /// The head gets a matrix of its own, since the final norm's weight is in it and not in the
  /// embedding.
  package let unties: Bool
  /// Channels of a run that is rotated before each `down` at run time, by block; nil for none.
  package private(set) var onlineRuns: Int?
  /// Sentences for the report.
  package private(set) var notes: [String] = []
  private let configuration: ModelConfiguration
  private let residual: Rotation
  private var heads: [Rotation] = []
  private var changes: [String: Change] = [:]
  private var headChange = Change.matrix(inputs: .residual)

  /// - Parameters:
  ///   - learned: rotations in place of random ones.
  ///   - vector: a norm's weight or bias by its declared name, as float32.
  ///   - path: for messages.
  /// - Throws: `RotationError.notPossible`, and what `vector` throws.
  package init(
    _ settings: QuaRot, _ configuration: ModelConfiguration, path: String,
    learned: LearnedRotations? = nil, vector: (String) throws -> [Float]
  ) throws {
    self.configuration = configuration
    let reasons = Self.refusals(configuration)
    guard reasons.isEmpty else { throw RotationError.notPossible(reasons, path: path) }
    let reading = configuration.normsOfTheStream
    let keepsMean = reading.contains { if case .layer = $0.kind { true } else { false } }
    let residual =
      learned?.residual
      ?? Rotation(size: configuration.hiddenSize, seed: settings.seed, keepsMean: keepsMean)
    self.residual = residual
    var stuck: [String] = []
    func fold(_ norm: NormConfiguration, _ consumers: [LinearConfiguration]) throws -> NormFold? {
      let tensors = norm.parts
      let fold = NormFold(
        norm, weight: try tensors.weight.map(vector), bias: try tensors.bias.map(vector),
        consumersHaveBiases: !consumers.isEmpty && consumers.allSatisfy(\.hasBias),
        rotation: residual)
      if fold == nil { stuck.append("the bias of \(norm.name) stands on weights near zero") }
      return fold
    }
    // What the head reads.
    var finalFold: NormFold?
    if let norm = configuration.finalNorm { finalFold = try fold(norm, []) }
    unties = configuration.head.isTied && finalFold?.scale != nil
    headChange = .matrix(scale: finalFold?.scale, inputs: .residual)
    if let norm = configuration.finalNorm, let finalFold { note(norm, finalFold) }
    changes["\(configuration.embedding.name).weight"] = .matrix(inputs: .residual)
    if let positions = configuration.embedding.positions {
      changes["\(positions.name).weight"] = .matrix(inputs: .residual)
    }
    for (index, block) in configuration.blocks.enumerated() {
      for norm in [block.attentionNorms.output, block.feedForwardNorms.output].compactMap({ $0 }) {
        let tensors = norm.parts
        let values = try tensors.weight.map(vector) ?? [1]
        if !values.allSatisfy({ $0 == values[0] }) || tensors.bias != nil {
          stuck.append(
            "\(norm.name) stands between a branch and the residual stream, and its weight does "
              + "not commute with a rotation")
        }
      }
      heads.append(learned?.heads[index] ?? settings.headRotation(block, index))
      let attention = block.attention, feedForward = block.feedForward
      read(
        attention.inputs,
        through: try block.attentionNorms.before.flatMap { try fold($0, attention.inputs) },
        block.attentionNorms.before)
      read(
        feedForward.inputs,
        through: try block.feedForwardNorms.before.flatMap { try fold($0, feedForward.inputs) },
        block.feedForwardNorms.before)
      write(attention.output, inputs: settings.rotatesValues ? .heads(block: index) : .none)
      if settings.rotatesValues { rotateValues(block.valueAxis, block: index) }
      var down = Side.none
      if settings.isOnline {
        let runs = feedForward.down.inputs & -feedForward.down.inputs
        onlineRuns = runs
        if runs > 1 { down = .runs(of: runs) }
      }
      write(feedForward.down, inputs: down)
    }
    guard stuck.isEmpty else { throw RotationError.notPossible(stuck, path: path) }
    notes = describe(keepsMean: keepsMean)
  }

  // MARK: What changes

  private mutating func read(
    _ linears: [LinearConfiguration], through fold: NormFold?, _ norm: NormConfiguration?
  ) {
    if let norm, let fold { note(norm, fold) }
    for linear in linears {
      changes["\(linear.name).weight"] = .matrix(scale: fold?.scale, inputs: .residual)
      guard let shift = fold?.shift else { continue }
      changes["\(linear.name).bias"] = .bias(adding: (linear.matrix, shift))
    }
  }

  private mutating func note(_ norm: NormConfiguration, _ fold: NormFold) {
    let parts = norm.parts
    if let name = parts.weight, let value = fold.weight { changes[name] = .constant(value) }
    if let name = parts.bias, let values = fold.bias { changes[name] = .vector(values) }
  }

  private mutating func write(_ linear: LinearConfiguration, inputs: Side) {
    changes["\(linear.name).weight"] = .matrix(inputs: inputs, outputs: .residual)
    if linear.hasBias { changes["\(linear.name).bias"] = .bias(outputs: .residual) }
  }

  private mutating func rotateValues(_ axis: BlockStructure.Axis, block: Int) {
    let (weight, bias) = ("\(axis.linear.name).weight", "\(axis.linear.name).bias")
    if case .matrix(let scale, let inputs, _) = changes[weight] {
      changes[weight] = .matrix(scale: scale, inputs: inputs, outputs: .values(block: block, axis))
    }
    guard axis.linear.hasBias else { return }
    var adding: (matrix: ModelTensor, vector: [Float])?
    if case .bias(let found, _) = changes[bias] { adding = found }
    changes[bias] = .bias(adding: adding, outputs: .values(block: block, axis))
  }

  private func describe(keepsMean: Bool) -> [String] {
    var notes: [String] = []
    if unties {
      notes.append(
        "the head has a matrix of its own from now on: the final norm's weight is in it and not in "
          + "the embedding")
    }
    if residual.kind == .dense {
      notes.append(
        "no Hadamard matrix of size \(residual.size) is known: the rotation is a dense orthogonal "
          + "matrix")
    }
    if keepsMean { notes.append("rotations leave the mean alone, which layer norms subtract") }
    if let onlineRuns {
      notes.append(
        "the input of each down is multiplied by a Hadamard matrix of size \(onlineRuns) at run "
          + "time (transform_config). vLLM and Pare do that; transformers loads the model and leaves "
          + "it out, so that it computes something else there")
    }
    return notes
  }

  private static func refusals(_ model: ModelConfiguration) -> [String] {
    var reasons: [String] = []
    if model.blocks.isEmpty { reasons.append("it has no blocks") }
    if let norm = model.embedding.norm {
      reasons.append("\(norm.name) stands between the embedding and the residual stream")
    }
    if model.embedding.projection != nil || model.head.projection != nil {
      reasons.append("embeddings of another width than the residual stream are not supported")
    }
    for block in model.blocks {
      if block.residualIsNormed { reasons.append("\(block.name) adds to the normed input") }
      for norm in [block.attentionNorms.after, block.feedForwardNorms.after].compactMap({ $0 }) {
        reasons.append("\(norm.name) norms the residual stream itself")
      }
    }
    return reasons
  }

  // MARK: One tensor

  /// Whether anything happens to a tensor, declared by the original configuration or the new one.
  package func changes(_ tensor: ModelTensor) -> Bool {
    tensor.role == .head || changes[tensor.name] != nil
  }

  /// - Parameters:
  ///   - tensor: as the new configuration declares it.
  ///   - values: float32, of a matrix `[outputs, inputs]`; for a head that was tied the embedding's.
  ///   - matrix: another matrix of the original model as float32 `[outputs, inputs]`.
  /// - Returns: the same shape, float32.
  package func rotated(
    _ tensor: ModelTensor, _ values: Tensor, matrix: (ModelTensor) throws -> Tensor
  ) rethrows -> Tensor {
    guard let change = tensor.role == .head ? headChange : changes[tensor.name] else {
      return values
    }
    switch change {
    case .constant(let value):
      return Tensor(shape: values.shape) { $0.initialize(repeating: value) }
    case .vector(let new): return Tensor(new, shape: values.shape)
    case .bias(let adding, let outputs):
      var sum = Array(UnsafeBufferPointer(start: values.floats, count: values.count))
      if let adding {
        let product = product(try matrix(adding.matrix), adding.vector)
        for index in sum.indices { sum[index] = Float(Double(sum[index]) + product[index]) }
      }
      return Tensor(shape: values.shape) { target in
        _ = target.initialize(from: sum)
        guard let base = target.baseAddress else { return }
        switch outputs {
        case .residual: residual.rotateRows(base, lines: 1, stride: values.count)
        case .values(let block, let axis):
          for head in 0..<configuration.blocks[block].attention.keyValueHeads {
            heads[block].rotateRows(
              base + axis.offset + head * axis.stride, lines: 1, stride: values.count)
          }
        case .none, .heads, .runs: break
        }
      }
    case .matrix(let scale, let inputs, let outputs):
      return Tensor(shape: values.shape) { target in
        guard let base = target.baseAddress else { return }
        base.initialize(from: values.floats, count: values.count)
        rotate(base, values.shape[0], values.shape[1], scale, inputs, outputs)
      }
    }
  }

  private func rotate(
    _ base: UnsafeMutablePointer<Float>, _ rows: Int, _ columns: Int, _ scale: [Float]?,
    _ inputs: Side, _ outputs: Side
  ) {
    if let scale {
      let target = Unshared(base)
      Parallel.ranges(rows, of: max(1, (1 << 16) / columns)) { range in
        for row in range {
          let line = target.value + row * columns
          for column in 0..<columns { line[column] *= scale[column] }
        }
      }
    }
    switch inputs {
    case .residual: residual.rotateRows(base, lines: rows, stride: columns)
    case .heads(let block):
      let rotation = heads[block]
      for first in stride(from: 0, to: columns, by: rotation.size) {
        rotation.rotateRows(base + first, lines: rows, stride: columns)
      }
    case .runs(let size): BlockHadamard(size: size).apply(base, count: rows * columns)
    case .none, .values: break
    }
    switch outputs {
    case .residual: residual.rotateColumns(base, columns: columns, stride: columns)
    case .values(let block, let axis):
      for head in 0..<configuration.blocks[block].attention.keyValueHeads {
        heads[block].rotateColumns(
          base + (axis.offset + head * axis.stride) * columns, columns: columns, stride: columns)
      }
    case .none, .heads, .runs: break
    }
  }

  private func product(_ matrix: Tensor, _ vector: [Float]) -> [Double] {
    let (values, columns) = (Unshared(matrix.floats), matrix.columns)
    return Parallel.map(matrix.rows) { row in
      let line = values.value + row * columns
      return (0..<columns).reduce(0.0) { $0 + Double(line[$1]) * Double(vector[$1]) }
    }
  }
}

extension ModelConfiguration {
  /// Norms whose input is the residual stream.
  fileprivate var normsOfTheStream: [NormConfiguration] {
    blocks.flatMap { [$0.attentionNorms.before, $0.feedForwardNorms.before] }.compactMap { $0 }
      + [finalNorm].compactMap { $0 }
  }
}

extension NormConfiguration {
  /// Names of its tensors.
  fileprivate var parts: (weight: String?, bias: String?) {
    switch kind {
    case .rootMeanSquare: ("\(name).weight", nil)
    case .layer(let hasBias, let hasWeight):
      (hasWeight ? "\(name).weight" : nil, hasBias ? "\(name).bias" : nil)
    }
  }
}

extension LinearConfiguration {
  fileprivate var matrix: ModelTensor {
    ModelTensor(
      name: "\(name).weight", shape: isTransposed ? [inputs, outputs] : [outputs, inputs],
      role: role, isTransposed: isTransposed)
  }
}

extension BlockConfiguration {
  /// Rows of the values, which only mixing stands behind.
  fileprivate var valueAxis: BlockStructure.Axis {
    for feed in structure.feeds {
      if case .linear(let axis, _) = feed.source,
        feed.consumers.first?.name == attention.output.name
      {
        return axis
      }
    }
    preconditionFailure("a block's attention output reads its values")
  }
}
