package import Models
import Tensors

extension BlockWalk {
  /// The activations of all samples on their way through a model, between two blocks or two stages.
  struct Stream {
    private let store: ActivationStore
    private let model: LanguageModel
    private let batches: [CalibrationSet.Batch]

    /// The samples as the embedding gives them.
    ///
    /// - Parameter share: the budget of activations is divided by it.
    init(_ walk: BlockWalk, name: String, share: Int) throws {
      model = walk.model
      batches = walk.batches
      store = ActivationStore(
        batches: batches.count, folder: walk.settings.folder, name: name,
        budget: walk.activationBudget / share)
      for (number, batch) in batches.enumerated() {
        let x = model.embedding(batch.tokens, positions: batch.segments.flatMap { 0..<$0.count })
        try store.put([x], at: number)
      }
      model.embedding.table.giveBack()
    }

    func context(_ batch: Int, _ block: Int) -> Block.Context {
      model.context(of: batches[batch].segments, block: block)
    }

    /// `[tokens, hidden]` at the start of a block.
    func input(_ batch: Int) throws(CalibrationError) -> Tensor {
      let parts = try store.get(batch)
      guard let x = parts.first ?? nil else { preconditionFailure("a batch without activations") }
      return x
    }

    /// Where a batch stands inside a block.
    func state(_ batch: Int) throws(CalibrationError) -> Block.State {
      guard let state = Block.State(parts: try store.get(batch)) else {
        preconditionFailure("a batch outside a block")
      }
      return state
    }

    func begin(_ block: Block) throws(CalibrationError) {
      for batch in batches.indices {
        try store.put(block.begin(try input(batch)).parts, at: batch)
      }
    }

    func run(_ stage: Block.Stage, _ block: Block, _ batch: Int, _ index: Int)
      throws(CalibrationError)
    {
      var state = try state(batch)
      block.run(stage, &state, context(batch, index))
      try store.put(stage == .feedForwardOutput ? [state.residual] : state.parts, at: batch)
    }

    /// Through a whole block.
    func pass(_ block: Block, _ index: Int) throws(CalibrationError) {
      for batch in batches.indices {
        try store.put([block.forward(try input(batch), context(batch, index))], at: batch)
      }
    }
  }

  // MARK: - Memory

  /// The program, and what is not counted one by one.
  private static let baseBytes = 80 << 20

  /// Bytes that treating a block takes besides the activations that are kept between stages.
  package func workingBytes(_ block: Block) -> Int {
    let weights = block.linears.map { $0.configuration.outputs * $0.configuration.inputs }
    let stored = block.linears.reduce(0) { $0 + $1.weight.storedBytes }
    // Matrices that factors moved through, and what learns, are float32 copies.
    let isCopied = !treatment.scalings.isEmpty || !treatment.blockMethods.isEmpty
    let copies = isCopied ? weights.reduce(0, +) * 4 : 0
    let stages = Block.Stage.allCases.map { block.linears(of: $0) }
    let sums = stages.map { linears in
      linears.first.map {
        InputStatisticsSum.byteCount(
          inputs: $0.configuration.inputs, needs: treatment.needs(linears))
      } ?? 0
    }
    let scalingNeeds = treatment.scalings.reduce(into: StatisticsNeeds()) { $0.formUnion($1.needs) }
    let scalingSums =
      isCopied
      ? stages.reduce(0) { sum, linears in
        sum
          + (linears.first.map {
            InputStatisticsSum.byteCount(inputs: $0.configuration.inputs, needs: scalingNeeds)
          } ?? 0)
      } : 0
    // A method works on a float32 copy of one matrix, and on factors of its second moment.
    let method = 2 * 4 * (weights.max() ?? 0) + 2 * (sums.max() ?? 0)
    let learning = treatment.blockMethods.isEmpty ? 0 : 4 * weights.reduce(0, +) * 4
    return Self.baseBytes + stored + copies + max(scalingSums, (sums.max() ?? 0) + method)
      + learning + batchBytes(block)
  }

  /// What a batch takes inside a block.
  private func batchBytes(_ block: Block) -> Int {
    let tokens = batches.map(\.tokens.count).max() ?? 0
    let attention = block.configuration.attention
    let width =
      5 * model.configuration.hiddenSize
      + 2 * (attention.heads + 2 * attention.keyValueHeads) * attention.headDim
      + 4 * block.configuration.feedForward.intermediateSize
    return tokens * 4 * width
  }

  /// Bytes that activations between stages may keep in memory.
  var activationBudget: Int {
    guard let limit = settings.memoryLimit else { return .max }
    return max(0, limit - (model.blocks.map(workingBytes).max() ?? 0))
  }
}
