import Calibration
import Codecs
import Models
import Tensors
import Training

/// A model whose matrices are rotated and rounded anew in each pass, so that the loss has a derivative
/// with respect to the rotations.
struct RotatedNetwork {
  private let model: LanguageModel
  /// Float32 `[outputs, inputs]`, norms' weights in their columns; by module.
  private let folded: [String: Tensor]
  private let codecs: [String: AffineGroups]

  init(_ model: LanguageModel, codec: (LinearConfiguration) -> AffineGroups?) throws {
    var folded: [String: Tensor] = [:]
    var codecs: [String: AffineGroups] = [:]
    var plain = model
    for (index, block) in model.blocks.enumerated() {
      func fold(_ linears: [Linear], _ norm: Norm?) throws {
        var scale: [Float]?
        if let norm, let weight = norm.weight {
          guard case .rootMeanSquare(let offset) = norm.configuration.kind else {
            throw RotationError.notPossible(
              [
                "\(norm.configuration.name) is a layer norm, and rotations are learned for RMS norms"
              ],
              path: model.checkpoint.path)
          }
          scale = (0..<weight.count).map { weight.floats[$0] + offset }
        }
        for linear in linears {
          let name = linear.configuration.name
          codecs[name] = codec(linear.configuration)
          let values = linear.weight.dequantized()
          guard let scale else {
            folded[name] = values
            continue
          }
          folded[name] = Tensor(shape: values.shape) { target in
            for at in target.indices { target[at] = values.floats[at] * scale[at % scale.count] }
          }
        }
      }
      try fold(block.attentionInputs, block.attentionNorms.before)
      try fold([block.attentionOutput], nil)
      try fold(block.feedForwardInputs, block.feedForwardNorms.before)
      try fold([block.feedForwardOutput], nil)
      plain.blocks[index].attentionNorms.before?.weight = nil
      plain.blocks[index].feedForwardNorms.before?.weight = nil
    }
    self.model = plain
    self.folded = folded
    self.codecs = codecs
  }

  /// Mean negative log-likelihood of the next tokens, nats; its derivatives arrive at the rotations.
  func loss(
    _ tokens: [Int], _ segments: [Range<Int>], residual: Tensor, heads: [Tensor]?
  ) throws -> Double {
    try model.check(tokens, segments)
    let positions = segments.flatMap { 0..<$0.count }
    var x = model.embedding(tokens, positions: positions).multiplied(by: residual)
    for index in model.blocks.indices {
      let block = try rotated(model.blocks[index], residual, heads?[index])
      x = block.forward(x, model.context(of: segments, block: index))
    }
    let plain = x.multiplied(byTransposeOf: residual)
    let hidden = model.finalNorm?(plain) ?? plain
    let wanted = segments.flatMap { $0.dropLast() }
    let weight = 1 / Float(max(wanted.count, 1))
    let (sum, gradient) = model.headLoss(hidden, wanted: wanted) { rows, logits in
      CrossEntropy.evaluate(
        logits, targets: rows.map { tokens[$0 + 1] },
        weights: [Float](repeating: weight, count: rows.count))
    }
    Tape.backward([(hidden, gradient)])
    return sum
  }

  private func rotated(_ block: Block, _ residual: Tensor, _ head: Tensor?) throws -> Block {
    var block = block
    let attention = block.configuration.attention
    func reading(_ linear: inout Linear, values: Range<Int>? = nil) throws {
      guard let matrix = folded[linear.configuration.name] else { return }
      var w = matrix.multiplied(by: residual)
      if let head, let values {
        w = Self.rotatingRows(w, values, head)
        linear.bias = linear.bias.map {
          Self.rotatingRows($0.reshaped([$0.count, 1]), values, head).reshaped([$0.count])
        }
      }
      linear.weight = DenseWeight(try rounded(w, linear.configuration.name))
    }
    func writing(_ linear: inout Linear, _ matrix: Tensor?) throws {
      guard let matrix else { return }
      let w = matrix.turned.multiplied(by: residual).turned
      linear.weight = DenseWeight(try rounded(w, linear.configuration.name))
      linear.bias = linear.bias.map {
        $0.reshaped([1, $0.count]).multiplied(by: residual).reshaped([$0.count])
      }
    }
    let size = attention.headDim
    let rows = attention.keyValueHeads * size
    for index in block.attentionInputs.indices {
      var values: Range<Int>?
      switch attention.layout {
      case .separate: if index == 2 { values = 0..<rows }
      case .blocks:
        let first = (attention.heads + attention.keyValueHeads) * size
        values = first..<(first + rows)
      // Values that lie head by head between queries and keys keep the rotation they have.
      case .perHead: break
      }
      try reading(&block.attentionInputs[index], values: values)
    }
    var output = folded[block.attentionOutput.configuration.name]
    if let head, let matrix = output, attention.layout != .perHead {
      output = matrix.reshaped([matrix.count / size, size]).multiplied(by: head)
        .reshaped(matrix.shape)
    }
    try writing(&block.attentionOutput, output)
    for index in block.feedForwardInputs.indices { try reading(&block.feedForwardInputs[index]) }
    try writing(
      &block.feedForwardOutput, folded[block.feedForwardOutput.configuration.name])
    return block
  }

  /// `Rᵀ` times every run of rows in a range; the others stay.
  private static func rotatingRows(_ w: Tensor, _ range: Range<Int>, _ rotation: Tensor) -> Tensor {
    let size = rotation.rows
    // [in, out] has a head's rows side by side.
    let turned = w.turned
    let part = turned.columns(range)
    let rotated = part.reshaped([part.count / size, size]).multiplied(by: rotation)
      .reshaped(part.shape)
    let end = turned.columns
    let parts = [
      range.lowerBound > 0 ? turned.columns(0..<range.lowerBound).turned : nil, rotated.turned,
      range.upperBound < end ? turned.columns(range.upperBound..<end).turned : nil,
    ].compactMap { $0 }
    return parts.count == 1 ? parts[0] : Tensor.stacked(parts)
  }

  /// The nearest points of the grid, with a gradient as if nothing had been rounded.
  private func rounded(_ w: Tensor, _ module: String) throws -> Tensor {
    guard let codec = codecs[module] else { return w }
    let stored = try RoundToNearest(codec: codec).compress(w.detached).weight.dequantized()
    return stored.recorded(from: w) { [place = w.place] in place.receive($0) }
  }
}

extension Tensor {
  /// The transpose, with its backward rule.
  fileprivate var turned: Tensor {
    transposed().recorded(from: self) { [place] in place.receive($0.transposed()) }
  }
}
