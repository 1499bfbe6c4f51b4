package import Checkpoints
package import Models
import Tensors

extension ImportanceMatrix {
  /// Runs texts through a model and sums the squares of what reaches each matrix, block by block,
  /// stage by stage, and before the head.
  ///
  /// - Parameters:
  ///   - model: in any form; its matrices are multiplied as they are.
  ///   - texts: tokens of each text, run one after the other.
  ///   - name: a matrix's name in a GGUF file; nil for one that has none. Given the role `.head`, the
  ///     names of all tensors that the head may be written as.
  /// - Throws: `ModelError`, `CheckpointError`.
  package static func measure(
    _ model: LanguageModel, texts: [[Int]], name: (ModelTensor) -> [String],
    onProgress: (_ done: Int) throws -> Void = { _ in }
  ) throws -> ImportanceMatrix {
    var sums: [Place: InputStatisticsSum] = [:]
    func see(_ x: Tensor, at place: Place) {
      let sum = sums[place] ?? InputStatisticsSum(inputs: x.columns, needs: .magnitudes)
      sum.add(x)
      sums[place] = sum
    }
    for (number, tokens) in texts.enumerated() {
      try onProgress(number)
      let segments = [0..<tokens.count]
      try model.check(tokens, segments)
      var x = model.embedding(tokens, start: 0)
      for (index, block) in model.blocks.enumerated() {
        let context = model.context(of: segments, block: index)
        var state = block.begin(x)
        for stage in Block.Stage.allCases {
          if let linear = block.linears(of: stage).first {
            see(linear.transformed(state.input), at: Place(block: index, stage: stage))
          }
          block.run(stage, &state, context)
        }
        x = state.residual
      }
      let hidden = model.finalNorm?(x) ?? x
      see(model.headProjection?(hidden) ?? hidden, at: Place(block: nil, stage: nil))
      try model.checkpoint.checkIntact()
    }
    try onProgress(texts.count)
    var matrix = ImportanceMatrix(
      chunkCount: texts.count, chunkSize: texts.map(\.count).max() ?? 0)
    for (place, sum) in sums {
      let statistics = sum.finish()
      let entry = Entry(
        sums: statistics.meanSquare.map { Float(Double($0) * Double(statistics.tokens)) },
        counts: [Float(statistics.tokens)])
      for name in place.tensors(of: model).flatMap(name) { matrix.entries[name] = entry }
    }
    return matrix
  }

  /// Matrices that share an input.
  private struct Place: Hashable {
    /// Nil for the head.
    var block: Int?
    var stage: Block.Stage?

    func tensors(of model: LanguageModel) -> [ModelTensor] {
      guard let block, let stage else {
        let configuration = model.configuration
        return [
          ModelTensor(
            name: "\(configuration.head.name).weight",
            shape: [configuration.vocabularySize, configuration.embedding.width], role: .head)
        ]
      }
      return model.blocks[block].linears(of: stage).map { linear in
        let matrix = linear.configuration
        return ModelTensor(
          name: "\(matrix.name).weight", shape: [matrix.outputs, matrix.inputs],
          role: matrix.role, block: block)
      }
    }
  }
}

extension Block {
  /// The matrices that multiply a stage's input.
  fileprivate func linears(of stage: Stage) -> [Linear] {
    switch stage {
    case .queryKeyValue: attentionInputs
    case .attention: []
    case .attentionOutput: [attentionOutput]
    case .feedForwardInput: feedForwardInputs
    case .feedForwardOutput: [feedForwardOutput]
    }
  }
}
