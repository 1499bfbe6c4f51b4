package import Models
package import Tensors

/// What a training will hold in memory, from shapes alone.
public struct MemoryEstimate: Sendable, Equatable {
  /// The numbers being trained, and frozen ones that are read beside them.
  public var weightBytes = 0
  /// float32, one for each trained number.
  public var gradientBytes = 0
  /// Moments, master copies, averaged weights.
  public var optimizerBytes = 0
  /// What the rows that pass through together leave for the way back, with what is in use at once.
  public var activationBytes: Int { activationBytes(rows: rows) }
  /// The program, its tables and buffers.
  public var programBytes = 32 << 20

  private let rows: Int
  private let length: Int
  private let bytesPerToken: Int
  private let headRows: Int
  private let vocabularySize: Int

  private func activationBytes(rows: Int) -> Int {
    // Logits, their gradient and a copy in use.
    rows * length * bytesPerToken + 3 * min(headRows, rows * length) * vocabularySize * 4
  }

  public var total: Int {
    weightBytes + gradientBytes + optimizerBytes + activationBytes + programBytes
  }

  package init(
    model: LanguageModel, parameters: [Parameter], settings: TrainingSettings, teacherBytes: Int = 0
  ) {
    let trained = parameters.reduce(0) { $0 + $1.count }
    rows = settings.rowsAtOnce
    length = settings.length
    headRows = model.headRows
    vocabularySize = model.configuration.vocabularySize
    let bytes = 4 * Self.activationFloats(model, recomputes: settings.recomputes)
    // Sums of a base's product and an adapter's come and go between what is kept, which leaves holes.
    bytesPerToken = model.adapters.isEmpty ? bytes : bytes * 5 / 4
    weightBytes = Self.storedBytes(model) + teacherBytes
    gradientBytes = 4 * trained
    optimizerBytes =
      settings.optimizer.stateBytes(for: parameters, options: settings.optimizerOptions)
      + settings.optimizer.scratchBytes(for: parameters)
      + (settings.averageDecay == nil ? 0 : WeightAverage.stateBytes(for: parameters))
  }

  /// Bytes of all tensors in the forms they have now, codes and adapters included.
  private static func storedBytes(_ model: LanguageModel) -> Int {
    var bytes = 0
    _ = model.mapped(
      matrix: { _, weight in
        bytes += weight.storedBytes
        return weight
      },
      vector: { _, tensor in
        bytes += tensor.byteCount
        return tensor
      })
    return bytes
  }

  /// float32 numbers kept for each token.
  private static func activationFloats(_ adapted: LanguageModel, recomputes: Bool) -> Int {
    let model = adapted.configuration
    // DoRA's factors need what they multiply.
    let multiplied = adapted.adapters.filter { $0.weight.magnitude != nil }
      .reduce(0) { $0 + $1.weight.outputs }
    let kept = model.blocks.map { block -> Int in
      let attention = block.attention
      let queries = attention.heads * attention.headDim
      let keys = attention.keyValueHeads * attention.headDim
      let wide = block.feedForward.intermediateSize * (block.feedForward.isGated ? 3 : 2)
      // Inputs of two norms and of the matrices behind them; queries, keys, values, their mixture.
      return 4 * model.hiddenSize + 2 * queries + 2 * keys + wide
    }
    let widest = kept.max() ?? 0
    // On the way back, a block's gradients stand beside what it kept.
    let inUse = widest + 4 * model.hiddenSize
    return recomputes
      ? model.blocks.count * model.hiddenSize + widest + inUse
        + multiplied / max(model.blocks.count, 1)
      : kept.reduce(0, +) + inUse + multiplied
  }

  /// - Throws: `TrainingError.memoryExceeded` with what would fit.
  package func check(limit: Int?, settings: TrainingSettings) throws(TrainingError) {
    guard let limit, total > limit else { return }
    let fixed = total - activationBytes
    var advice = "Use a smaller model, --optimizer-bits 8 or adapters, or raise --memory-limit."
    if fixed < limit {
      let fitting = stride(from: rows - 1, through: 1, by: -1).first {
        settings.batchSize % $0 == 0 && fixed + activationBytes(rows: $0) <= limit
      }
      advice =
        (fitting.map { "Use --micro-batch-size \($0)" } ?? "Use a shorter --length")
        + (settings.recomputes ? "." : ", or --recompute.")
    }
    throw .memoryExceeded(needed: total, limit: limit, advice: advice)
  }
}
