import Tensors

/// Tokenizes documents a little before they are needed, several at a time in parallel, and keeps
/// those of small data from one epoch to the next. What it returns depends on neither.
struct ExampleLoader: Sendable {
  let data: TrainingData
  let encoder: ExampleEncoder
  private var kept: [Int: TrainingExample] = [:]
  private var keptTokens = 0
  private var touchedBytes = 0

  private static let keptTokensLimit = 1 << 20

  init(_ data: TrainingData, _ encoder: ExampleEncoder) {
    self.data = data
    self.encoder = encoder
  }

  /// Examples of documents by their numbers.
  mutating func load(_ numbers: some Sequence<Int>) throws(TrainingError) -> [TrainingExample] {
    let numbers = Array(numbers)
    let missing = Array(Set(numbers.filter { kept[$0] == nil })).sorted()
    let (data, encoder) = (data, encoder)
    let results = Parallel.map(missing.count) { index -> Result<TrainingExample, TrainingError> in
      let number = missing[index]
      do throws(TrainingError) {
        let content = try data.content(number)
        do {
          return .success(try encoder.encode(content))
        } catch {
          return .failure(data.refusal(number, error))
        }
      } catch {
        return .failure(error)
      }
    }
    // A file that changed explains what else went wrong.
    if !missing.isEmpty { try data.checkUnchanged() }
    var fresh: [Int: TrainingExample] = [:]
    for (number, result) in zip(missing, results) { fresh[number] = try result.get() }
    var examples: [TrainingExample] = []
    for number in numbers {
      guard let example = kept[number] ?? fresh[number] else { continue }
      examples.append(example)
    }
    for (number, example) in fresh { keep(number, example) }
    return examples
  }

  private mutating func keep(_ number: Int, _ example: TrainingExample) {
    if keptTokens + example.tokens.count > Self.keptTokensLimit {
      kept = [:]
      keptTokens = 0
    }
    kept[number] = example
    keptTokens += example.tokens.count
    // The system maps pages around the one that is read, commonly 64 KiB in all.
    touchedBytes += max(data.byteCount(number), 1 << 16)
    if touchedBytes > 1 << 27 {
      data.giveBackPages()
      touchedBytes = 0
    }
  }
}
