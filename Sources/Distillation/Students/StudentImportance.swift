package import Models
import Tensors

/// What a teacher's parts do on a sample of text: what a student is cut by.
///
/// Layers by block influence, one minus the cosine between a block's input and output (ShortGPT,
/// arXiv:2403.03853); hidden channels, heads and neurons by the size of what they give out (Minitron,
/// Muralidharan et al. 2024, arXiv:2407.14679), as mean squares over tokens.
package struct StudentImportance: Sendable, Equatable {
  /// One of each block.
  package var layers: [Double]
  /// Of each channel, summed over all norms that read the residual stream.
  package var hidden: [Double]
  /// `[block][head]`
  package var heads: [[Double]]
  /// `[block][neuron]`
  package var intermediate: [[Double]]
  package var tokens: Int

  /// - Parameter batches: tokens, and the places of texts among them.
  /// - Throws: as `LanguageModel.hidden`; `ModelError.noTokens` without any text.
  package static func measure(
    _ model: LanguageModel, batches: [(tokens: [Int], segments: [Range<Int>])]
  ) throws -> StudentImportance {
    let model = model.detached
    let blocks = model.configuration.blocks
    var sums = StudentImportance(
      layers: blocks.map { _ in 0 },
      hidden: [Double](repeating: 0, count: model.configuration.hiddenSize),
      heads: blocks.map { [Double](repeating: 0, count: $0.attention.heads) },
      intermediate: blocks.map {
        [Double](repeating: 0, count: $0.feedForward.intermediateSize)
      }, tokens: 0)
    guard !batches.isEmpty else { throw ModelError.noTokens }
    for (tokens, segments) in batches {
      try model.check(tokens, segments)
      sums.tokens += tokens.count
      var x = model.embedding(tokens, positions: segments.flatMap { 0..<$0.count })
      for index in model.blocks.indices {
        x = sums.watch(model.blocks[index], x, model.context(of: segments, block: index))
      }
      if let norm = model.finalNorm { sums.hidden.addSquares(of: norm(x), per: 1) }
      try model.checkpoint.checkIntact()
    }
    return sums.scaled(by: 1 / Double(sums.tokens))
  }

  /// Runs a block stage by stage, looking at what passes between them.
  private mutating func watch(_ block: Block, _ x: Tensor, _ context: Block.Context) -> Tensor {
    var state = block.begin(x)
    hidden.addSquares(of: state.input, per: 1)
    for stage in Block.Stage.allCases {
      switch stage {
      case .attentionOutput:
        heads[context.index].addSquares(
          of: state.input, per: block.configuration.attention.headDim)
      case .feedForwardInput: hidden.addSquares(of: state.input, per: 1)
      case .feedForwardOutput: intermediate[context.index].addSquares(of: state.input, per: 1)
      case .queryKeyValue, .attention: break
      }
      block.run(stage, &state, context)
    }
    layers[context.index] += Self.summedInfluence(x, state.residual)
    return state.residual
  }

  /// Over tokens, one minus the cosine.
  private static func summedInfluence(_ before: Tensor, _ after: Tensor) -> Double {
    let width = before.columns
    return (0..<before.rows).reduce(0) { sum, row in
      let (a, b) = (before.floats + row * width, after.floats + row * width)
      var (product, first, second) = (0.0, 0.0, 0.0)
      for column in 0..<width {
        let (x, y) = (Double(a[column]), Double(b[column]))
        product += x * y
        first += x * x
        second += y * y
      }
      let lengths = (first * second).squareRoot()
      return sum + 1 - (lengths > 0 ? product / lengths : 0)
    }
  }

  private func scaled(by factor: Double) -> StudentImportance {
    StudentImportance(
      layers: layers.map { $0 * factor }, hidden: hidden.map { $0 * factor },
      heads: heads.map { $0.map { $0 * factor } },
      intermediate: intermediate.map { $0.map { $0 * factor } }, tokens: tokens)
  }
}

extension [Double] {
  /// Adds the squares of a matrix's columns, some neighbouring columns to one sum.
  fileprivate mutating func addSquares(of matrix: Tensor, per size: Int) {
    let width = matrix.columns
    for row in 0..<matrix.rows {
      let values = matrix.floats + row * width
      for column in 0..<width {
        self[column / size] += Double(values[column]) * Double(values[column])
      }
    }
  }
}
