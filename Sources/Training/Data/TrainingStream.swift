import Tensors

/// Batches of a data set, one after another, the same for the same data, seed and settings.
public struct TrainingStream: Sendable {
  public struct Options: Sendable, Equatable {
    public var rows: Int
    /// Tokens in a row.
    public var length: Int
    public var mode: Mode
    public var use: TrainingData.Use
    /// Whether each epoch has an order of its own; otherwise that of the files.
    public var isShuffled: Bool
    /// Epochs until the stream ends; endless when nil.
    public var passes: Int?

    /// - Parameters: as the properties; held-out data is by default passed once, in its order.
    public init(
      rows: Int, length: Int, mode: Mode = .packed, use: TrainingData.Use = .training,
      isShuffled: Bool? = nil, passes: Int? = nil
    ) {
      self.rows = rows
      self.length = length
      self.mode = mode
      self.use = use
      self.isShuffled = isShuffled ?? (use == .training)
      self.passes = passes ?? (use == .heldOut ? 1 : nil)
    }
  }

  /// How documents become rows.
  public enum Mode: String, Sendable, CaseIterable {
    /// Back to back; a row's last document goes on in the next row, without what came before.
    case packed
    /// Back to back, but only documents longer than a row are split; each goes to the first row
    /// with room, and what is left of rows is padding. For instructions and conversations, whose
    /// answers mean little without their prompts.
    case whole
    /// Each document, or piece of a long one, in a row of its own.
    case padded
    /// One stream of tokens cut into rows, each one segment. A document's first token still does
    /// not count.
    case stream
    /// As `stream`, but every row starts at a random place, with replacement: there are no epochs.
    case windows
  }

  public let data: TrainingData
  public let options: Options
  /// Where the next batch starts.
  public private(set) var position: DataPosition

  private let filler: Int
  private var loader: ExampleLoader
  private var epoch = -1
  private var order: [UInt32] = []
  /// Examples of `order[loaded]`.
  private var examples: [TrainingExample] = []
  private var loaded = 0..<0

  /// - Parameter filler: a token for padding, such as EOS; its predictions never count.
  /// - Throws: `TrainingError` for sizes that make no rows, a position that is not in the data, or
  ///   an empty held-out part.
  public init(
    _ data: TrainingData, encoder: ExampleEncoder, options: Options, filler: Int = 0,
    position: DataPosition = .start
  ) throws(TrainingError) {
    guard options.rows >= 1 else {
      throw .badSetting("the batch size", value: "\(options.rows)", expected: "at least 1")
    }
    guard options.length >= 1 else {
      throw .badSetting("the row length", value: "\(options.length)", expected: "at least 1")
    }
    guard data.count(options.use) > 0 else {
      throw .cannotHoldOut(documents: data.count(.training))
    }
    guard options.mode != .windows || (options.use == .training && options.passes == nil) else {
      throw .badSetting(
        "the mode of data that is passed a number of times", value: "windows",
        expected: "one that goes from document to document")
    }
    guard position.document < data.count(options.use) || position.document == 0 else {
      throw .badPosition(
        problem: "it is after \(position.document) documents, the data has "
          + "\(data.count(options.use))")
    }
    self.data = data
    self.options = options
    self.filler = filler
    self.position = position
    loader = ExampleLoader(data, encoder)
  }

  /// The same stream at another place.
  /// - Throws: `badPosition` for a place that is not in the data.
  package func at(_ position: DataPosition) throws(TrainingError) -> TrainingStream {
    try TrainingStream(
      data, encoder: loader.encoder, options: options, filler: filler, position: position)
  }

  /// The next batch; nil after the last pass. The last batch of a pass that ends is padded.
  public mutating func next() throws(TrainingError) -> TrainingBatch? {
    var batch = BatchBuilder(rows: options.rows, length: options.length, filler: filler)
    if options.mode == .windows {
      try fillWindows(&batch)
    } else {
      try fill(&batch)
      if batch.isEmpty { return nil }
    }
    position.batch += 1
    return batch.finish()
  }

  /// The next documents whole, for methods that make batches of their own, such as those that
  /// train on what a model answers to prompts. Fewer than asked for only after the last pass.
  public mutating func nextExamples(_ count: Int) throws(TrainingError) -> [TrainingExample] {
    var examples: [TrainingExample] = []
    while examples.count < count, let example = try current() {
      examples.append(example)
      nextDocument()
    }
    position.batch += 1
    return examples
  }
}

// MARK: - Filling a batch

extension TrainingStream {
  /// In a stream the last token of a document is an input too, so that rows have no seams.
  private func inputs(_ example: TrainingExample) -> Int {
    options.mode == .stream ? example.tokens.count : example.predictions
  }

  private mutating func fill(_ batch: inout BatchBuilder) throws(TrainingError) {
    let startEpoch = position.epoch
    while let example = try current() {
      let left = inputs(example) - position.token
      guard left > 0 else {
        nextDocument()
        // Two epochs without a single input: there will never be any.
        if batch.isEmpty, position.epoch > startEpoch + 1 {
          throw .noTokens(files: data.sources.map(\.path))
        }
        continue
      }
      guard let (row, count) = place(left, batch) else { return }
      batch.place(
        example, position.token..<position.token + count, row: row, joins: options.mode == .stream)
      position.token += count
      if count == left { nextDocument() }
    }
    if batch.isEmpty, position.batch == 0 {
      throw .noTokens(files: data.sources.map(\.path))
    }
  }

  /// Where the next `left` inputs go, and how many of them; nil when the batch is full.
  private func place(_ left: Int, _ batch: BatchBuilder) -> (row: Int, count: Int)? {
    switch options.mode {
    case .packed, .stream, .windows:
      guard let row = (0..<batch.rows).first(where: { batch.room($0) > 0 }) else { return nil }
      return (row, min(left, batch.room(row)))
    case .whole:
      let count = min(left, batch.length)
      guard let row = (0..<batch.rows).first(where: { batch.room($0) >= count }) else {
        return nil
      }
      return (row, count)
    case .padded:
      guard let row = (0..<batch.rows).first(where: { batch.used[$0] == 0 }) else { return nil }
      return (row, min(left, batch.length))
    }
  }

  /// Rows that start at a token drawn evenly, in the manner of nanoGPT.
  private mutating func fillWindows(_ batch: inout BatchBuilder) throws(TrainingError) {
    var random = Xoshiro256(seed: Mixer.mixed(Mixer.mixed(data.seed, -2), position.batch))
    let drawn = (0..<batch.rows).map { _ in (data.draw(&random), random.uniform()) }
    let firsts = try loader.load(drawn.map(\.0))
    for (row, example) in firsts.enumerated() {
      var number = drawn[row].0
      var example = example
      var token = Int(drawn[row].1 * Double(example.tokens.count))
      var emptyDocuments = 0
      while batch.room(row) > 0 {
        let count = min(example.tokens.count - token, batch.room(row))
        batch.place(example, token..<token + count, row: row, joins: true)
        emptyDocuments = count > 0 ? 0 : emptyDocuments + 1
        guard emptyDocuments <= data.count(.training) else {
          throw .noTokens(files: data.sources.map(\.path))
        }
        number = data.following(number)
        if batch.room(row) > 0 { example = try loader.load([number])[0] }
        token = 0
      }
    }
  }
}

// MARK: - Going through the documents

extension TrainingStream {
  private mutating func nextDocument() {
    position.token = 0
    position.document += 1
    if position.document == data.count(options.use) {
      position.document = 0
      position.epoch += 1
    }
  }

  /// The document at the position; nil after the last pass.
  private mutating func current() throws(TrainingError) -> TrainingExample? {
    if let passes = options.passes, position.epoch >= passes { return nil }
    if epoch != position.epoch {
      // Without shuffling every epoch is the first.
      if epoch < 0 || options.isShuffled {
        order = data.order(options.use, epoch: position.epoch, isShuffled: options.isShuffled)
      }
      epoch = position.epoch
      loaded = 0..<0
    }
    if !loaded.contains(position.document) {
      // Enough for every thread to have work, and little to do over after a restart.
      let end = min(position.document + 16 * Parallel.threads, order.count)
      loaded = position.document..<end
      examples = try loader.load(order[loaded].map(Int.init))
    }
    return examples[position.document - loaded.lowerBound]
  }
}
