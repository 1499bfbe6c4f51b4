import Checkpoints
package import Models
package import Tensors

/// Runs a mapped model that is larger than memory over many texts: the hidden states of a group of
/// batches pass through one block, whose pages then go, before the next block is touched. Each weight
/// is read from the disk once for a group, whatever the group's size.
///
/// Its results are those of `LanguageModel.hidden(tokens:segments:)`, bit for bit.
package struct BlockMajorPass: Sendable {
  /// Texts side by side, and the places whose logits are wanted.
  package struct Batch: Sendable {
    package var tokens: [Int]
    package var segments: [Range<Int>]
    package var wanted: [Int]

    package init(tokens: [Int], segments: [Range<Int>], wanted: [Int]) {
      self.tokens = tokens
      self.segments = segments
      self.wanted = wanted
    }
  }

  package let model: LanguageModel
  /// Tokens whose hidden states are in memory together.
  package let groupTokens: Int

  /// What is not counted one by one: the program, chunks of widened weights and of logits.
  package static let overheadBytes = 96 << 20

  /// So many products for each weight hide any reading; more would only be more to keep.
  private static let enoughTokens = 1 << 16

  /// - Parameters:
  ///   - batchTokens: of the largest batch.
  ///   - memoryLimit: bytes that the pass may have resident, mapped weights included.
  /// - Throws: `badSetting` when not even one batch fits.
  package init(
    _ model: LanguageModel, batchTokens: Int, memoryLimit: Int
  ) throws(DistillationError) {
    self.model = model.detached
    let fixed = Self.weightBytes(model) + Self.workBytes(model, tokens: batchTokens)
    let stateBytes = model.configuration.hiddenSize * 4
    let needed = Self.overheadBytes + fixed + batchTokens * stateBytes
    guard memoryLimit >= needed else {
      throw .badSetting(
        "the memory for the teacher", value: "\(memoryLimit) bytes",
        expected: "at least \(needed) bytes for batches of \(batchTokens) tokens")
    }
    groupTokens = max(
      batchTokens,
      min((memoryLimit - Self.overheadBytes - fixed) / stateBytes, Self.enoughTokens))
  }

  /// The most weights that are touched between two givings back: of one block, or of the head.
  package static func weightBytes(_ model: LanguageModel) -> Int {
    let blocks = model.blocks.map { $0.linears.reduce(0) { $0 + $1.weight.storedBytes } }
    return max(blocks.max() ?? 0, model.head.storedBytes)
  }

  /// What a batch takes inside a block besides its states.
  private static func workBytes(_ model: LanguageModel, tokens: Int) -> Int {
    let widths = model.blocks.map { block in
      let attention = block.configuration.attention
      return 5 * model.configuration.hiddenSize
        + 2 * (attention.heads + 2 * attention.keyValueHeads) * attention.headDim
        + 4 * block.configuration.feedForward.intermediateSize
    }
    return tokens * 4 * (widths.max() ?? 0)
  }

  /// - Parameters:
  ///   - batches: at most `groupTokens` tokens in all, if the limit is to hold.
  ///   - consume: `(batch, which of its wanted places, their logits [rows, vocabulary])`, in order.
  /// - Throws: as `LanguageModel.hidden`, and whatever `consume` throws.
  package func run(
    _ batches: [Batch], consume: (Int, ArraySlice<Int>, Tensor) throws -> Void
  ) throws {
    for batch in batches { try model.check(batch.tokens, batch.segments) }
    var states = batches.map { batch in
      model.embedding(batch.tokens, positions: batch.segments.flatMap { 0..<$0.count })
    }
    model.embedding.table.giveBack()
    for (index, block) in model.blocks.enumerated() {
      for (number, batch) in batches.enumerated() {
        states[number] = block.forward(
          states[number], model.context(of: batch.segments, block: index))
      }
      for linear in block.linears { linear.weight.giveBack() }
      try model.checkpoint.checkIntact()
    }
    for (number, batch) in batches.enumerated() {
      let hidden = model.finalNorm?(states[number]) ?? states[number]
      for first in stride(from: 0, to: batch.wanted.count, by: model.headRows) {
        let places = batch.wanted[first..<min(first + model.headRows, batch.wanted.count)]
        try consume(number, places, model.logits(hidden.rows(at: Array(places))))
      }
    }
    model.head.giveBack()
    try model.checkpoint.checkIntact()
  }
}
