import Calibration
package import Models
package import Tensors
import Training

/// One input of matrices that can be scaled, and shifted, without changing what the block computes
/// (OmniQuant, arXiv:2308.13137, section 3.3): channel j becomes `(x_j − δ_j) / s_j`, its producer (a
/// norm or the rows of a matrix) gives it so, and every consumer takes it back:
///
///     W x + b = (W diag(s)) · (x − δ) / s + (b + W δ)
package struct EquivalentTransformation {
  enum Producer {
    case attentionNorm, feedForwardNorm
    /// A matrix of the block and, for each of its rows, the channel that the row gives.
    case linear(Int, channels: [Int?])
  }

  let producer: Producer
  /// Matrices of the block.
  let consumers: [Int]
  /// For each column of the consumers, the learned channel; grouped heads share one.
  let channels: [Int]
  /// Where the consumers' input stands.
  let stage: Block.Stage
  /// Whether producer and consumers have biases that can absorb a shift.
  package let allowsShift: Bool

  /// All that the block's structure allows, of inputs to matrices that will be rounded.
  package static func all(of block: Block, rounding isRounded: (Int) -> Bool)
    -> [EquivalentTransformation]
  {
    let stages: [Block.Stage] = [
      .queryKeyValue, .attentionOutput, .feedForwardInput, .feedForwardOutput,
    ]
    let names = block.linears.map(\.configuration.name)
    return zip(block.configuration.structure.feeds, stages).compactMap { feed, stage in
      let consumers = feed.consumers.compactMap { names.firstIndex(of: $0.name) }
      guard consumers.count == feed.consumers.count, consumers.contains(where: isRounded) else {
        return nil
      }
      switch feed.source {
      case .norm(let configuration):
        return ofNorm(configuration, block, consumers, stage)
      case .linear(let axis, let repeats):
        guard let producer = names.firstIndex(of: axis.linear.name) else { return nil }
        return ofLinear(producer, axis, repeats: repeats, block, consumers, stage)
      case .unfoldable:
        return nil
      }
    }
  }

  private static func ofNorm(
    _ configuration: NormConfiguration, _ block: Block, _ consumers: [Int], _ stage: Block.Stage
  ) -> EquivalentTransformation? {
    let isAttention = stage == .queryKeyValue
    let norms = [block.attentionNorms.before, block.feedForwardNorms.before]
    guard let norm = isAttention ? norms[0] : norms[1], norm.weight != nil,
      // Who else reads the norm's output would see it changed.
      !block.configuration.residualIsNormed,
      norms[0]?.configuration.name != norms[1]?.configuration.name
    else { return nil }
    return EquivalentTransformation(
      producer: isAttention ? .attentionNorm : .feedForwardNorm, consumers: consumers,
      channels: Array(0..<configuration.width), stage: stage,
      allowsShift: norm.bias != nil && consumers.allSatisfy { block.linears[$0].bias != nil })
  }

  private static func ofLinear(
    _ producer: Int, _ axis: BlockStructure.Axis, repeats: Int, _ block: Block,
    _ consumers: [Int], _ stage: Block.Stage
  ) -> EquivalentTransformation {
    let elements = axis.elementsPerUnit
    let inputs = block.linears[consumers[0]].configuration.inputs
    let channels = (0..<inputs).map { column in
      column / (elements * repeats) * elements + column % elements
    }
    var rows = [Int?](repeating: nil, count: axis.linear.outputs)
    for channel in 0..<inputs / repeats {
      rows[axis.offset + channel / elements * axis.stride + channel % elements] = channel
    }
    // What an activation multiplies keeps no shift; a mixture of values does, as its weights sum to 1.
    return EquivalentTransformation(
      producer: .linear(producer, channels: rows), consumers: consumers, channels: channels,
      stage: stage,
      allowsShift: stage == .attentionOutput
        && ([producer] + consumers).allSatisfy { block.linears[$0].bias != nil })
  }

  package var channelCount: Int { (channels.max() ?? -1) + 1 }
}

/// A transformation's numbers while they are learned.
package struct LearnedTransformation {
  let transformation: EquivalentTransformation
  /// s and δ, `[channels]`.
  package let scale: Parameter
  package let shift: Parameter?

  package init(
    _ transformation: EquivalentTransformation, index: Int,
    start: (scale: [Float], shift: [Float])?
  ) {
    self.transformation = transformation
    let count = transformation.channelCount
    func parameter(_ name: String, _ values: [Float]) -> Parameter {
      Parameter(
        name: "\(index).\(name)", initial: Tensor(values, shape: [count]), decays: false,
        isBlockMatrix: false)
    }
    scale = parameter("scale", start?.scale ?? [Float](repeating: 1, count: count))
    shift =
      transformation.allowsShift
      ? parameter("shift", start?.shift ?? [Float](repeating: 0, count: count)) : nil
  }

  var parameters: [Parameter] { [scale] + (shift.map { [$0] } ?? []) }

  /// Keeps scales away from zero, as the authors' code does.
  func truncate() {
    let values = scale.mutableFloats
    for index in 0..<scale.count where !(values[index] >= 0.01) { values[index] = 0.01 }
  }
}

extension Block {
  /// This block with transformations folded into its matrices, biases and norms; recorded where they
  /// learn.
  ///
  /// - Parameter dense: the block's matrices as float32 `[outputs, inputs]`.
  package func transformed(by learned: [LearnedTransformation], dense: [Tensor]) -> (
    block: Block, matrices: [Tensor]
  ) {
    var block = self
    var rows = [Tensor?](repeating: nil, count: dense.count)
    var columns = rows
    var biases = linears.map(\.bias)
    for one in learned {
      let transformation = one.transformation
      let s = one.scale.tensor
      for consumer in transformation.consumers {
        columns[consumer] = s.gathered(transformation.channels, default: 1)
        guard let shift = one.shift?.tensor, let bias = biases[consumer] else { continue }
        let delta = shift.gathered(transformation.channels, default: 0)
        let moved = Tensor.matmul(delta.reshaped([1, delta.count]), transposing: dense[consumer])
        biases[consumer] = bias + moved.reshaped(bias.shape)
      }
    }
    for one in learned {
      let inverse = one.scale.tensor.reciprocal()
      switch one.transformation.producer {
      case .attentionNorm:
        block.attentionNorms.before = attentionNorms.before?.rescaled(inverse, one.shift?.tensor)
      case .feedForwardNorm:
        block.feedForwardNorms.before = feedForwardNorms.before?
          .rescaled(inverse, one.shift?.tensor)
      case .linear(let producer, let channels):
        let factors = inverse.gathered(channels, default: 1)
        rows[producer] = factors
        guard let bias = biases[producer] else { continue }
        let kept = one.shift.map { bias - $0.tensor.gathered(channels, default: 0) } ?? bias
        biases[producer] = kept.multiplied(elementwise: factors)
      }
    }
    let matrices = dense.indices.map { dense[$0].rescaled(rows: rows[$0], columns: columns[$0]) }
    block = block.mappingLinears { index, linear in
      var linear = linear
      linear.bias = biases[index]
      if rows[index] != nil || columns[index] != nil {
        linear.weight = DenseWeight(matrices[index])
      }
      return linear
    }
    return (block, matrices)
  }
}

extension Norm {
  /// This norm giving `(y − shift) · inverse` in place of y.
  fileprivate func rescaled(_ inverse: Tensor, _ shift: Tensor?) -> Norm {
    var norm = self
    // A root-mean-square norm may add an offset to its weight, which the factor scales too.
    var offset: Float = 0
    if case .rootMeanSquare(let added) = configuration.kind { offset = added }
    if let weight {
      let base = Tensor(weight.array.map { $0 + offset }, shape: [weight.count])
      let scaled = base.multiplied(elementwise: inverse)
      let addend = Tensor([Float](repeating: -offset, count: weight.count), shape: [weight.count])
      norm.weight = offset == 0 ? scaled : scaled + addend
    }
    if let bias {
      norm.bias = (shift.map { bias - $0 } ?? bias).multiplied(elementwise: inverse)
    }
    return norm
  }
}
