/// Rows of tokens, each with the token that follows it and how much predicting that counts.
public struct TrainingBatch: Sendable, Equatable {
  public let rows: Int
  public let length: Int
  /// Token ids, `[rows, length]`.
  public let inputs: [Int]
  /// What follows each input, `[rows, length]`.
  public let targets: [Int]
  /// 1 where the prediction counts, 0 in prompts, across documents and in padding.
  public let weights: [Float]
  /// Stretches of the flattened inputs that see only themselves, positions counted from their start:
  /// pieces of documents, or padding. In order, without gaps, none longer than its row.
  public let segments: [Range<Int>]
  /// Inputs that are padding.
  public let padding: Int

  /// - Parameter segments: nil where each row sees all of itself and nothing else.
  package init(
    rows: Int, length: Int, inputs: [Int], targets: [Int], weights: [Float],
    segments: [Range<Int>]? = nil, padding: Int = 0
  ) {
    precondition([inputs.count, targets.count, weights.count].allSatisfy { $0 == rows * length })
    self.rows = rows
    self.length = length
    self.inputs = inputs
    self.targets = targets
    self.weights = weights
    self.segments = segments ?? (0..<rows).map { $0 * length..<($0 + 1) * length }
    self.padding = padding
  }

  /// Predictions that count.
  public var predictions: Int { weights.count { $0 != 0 } }
}

extension TrainingBatch {
  /// Whole examples back to back in one row, each a segment: a batch without padding. Examples that
  /// predict nothing are left out.
  package init(_ examples: [TrainingExample]) {
    let examples = examples.filter { $0.predictions > 0 }
    var builder = BatchBuilder(
      rows: 1, length: examples.reduce(0) { $0 + $1.predictions }, filler: 0)
    for example in examples {
      builder.place(example, 0..<example.predictions, row: 0, joins: false)
    }
    self = builder.finish()
  }
}

/// A batch that is being filled.
struct BatchBuilder {
  let rows: Int
  let length: Int
  private let filler: Int
  private var inputs: [Int]
  private var targets: [Int]
  private var weights: [Float]
  private var segments: [[Range<Int>]]
  private(set) var used: [Int]

  /// - Parameter filler: the token in places that stay empty.
  init(rows: Int, length: Int, filler: Int) {
    self.rows = rows
    self.length = length
    self.filler = filler
    inputs = [Int](repeating: filler, count: rows * length)
    targets = inputs
    weights = [Float](repeating: 0, count: rows * length)
    segments = [[Range<Int>]](repeating: [], count: rows)
    used = [Int](repeating: 0, count: rows)
  }

  var isEmpty: Bool { used.allSatisfy { $0 == 0 } }

  func room(_ row: Int) -> Int { length - used[row] }

  /// Puts some of a document's tokens, with what follows each, at the end of a row. What follows the
  /// last token belongs to another document and never counts.
  ///
  /// - Parameter joins: whether the row is one segment, whatever it holds.
  mutating func place(_ example: TrainingExample, _ range: Range<Int>, row: Int, joins: Bool) {
    precondition(range.count <= room(row))
    let start = row * length + used[row]
    for (offset, token) in range.enumerated() {
      inputs[start + offset] = example.tokens[token]
      guard token + 1 < example.tokens.count else { continue }
      targets[start + offset] = example.tokens[token + 1]
      weights[start + offset] = example.counts[token + 1] ? 1 : 0
    }
    let piece = start..<start + range.count
    if joins, let first = segments[row].first {
      segments[row] = [first.lowerBound..<piece.upperBound]
    } else {
      segments[row].append(piece)
    }
    used[row] += range.count
  }

  func finish() -> TrainingBatch {
    var all: [Range<Int>] = []
    for row in 0..<rows {
      all += segments[row]
      if room(row) > 0 { all.append(row * length + used[row]..<(row + 1) * length) }
    }
    return TrainingBatch(
      rows: rows, length: length, inputs: inputs, targets: targets, weights: weights,
      segments: all, padding: used.reduce(rows * length, -))
  }
}
