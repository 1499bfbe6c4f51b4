import Models
import Tensors
import Text
public import Training

/// The texts on which a model's activations are measured, as tokens.
public struct CalibrationSet: Sendable, Equatable {
  /// Tokens of one sample, and the stretches of it that see only themselves.
  public struct Sample: Sendable, Equatable {
    /// Ids, in order.
    public var tokens: [Int]
    /// Together all of `tokens`, in order; positions count from the start of each.
    public var segments: [Range<Int>]

    /// - Parameter segments: nil for one that is all of it.
    public init(tokens: [Int], segments: [Range<Int>]? = nil) {
      self.tokens = tokens
      self.segments = segments ?? [0..<tokens.count]
    }
  }

  /// Texts that pass the model side by side.
  package struct Batch: Sendable, Equatable {
    package var tokens: [Int]
    package var segments: [Range<Int>]
  }

  /// In the order in which sums are made; none is empty.
  public let samples: [Sample]
  /// Where the texts come from, in words for a report.
  public let origin: String

  /// - Parameter origin: in words for a report.
  public init(samples: [Sample], origin: String) {
    self.samples = samples.filter { !$0.tokens.isEmpty }
    self.origin = origin
  }

  /// Of all samples together.
  public var tokens: Int { samples.reduce(0) { $0 + $1.tokens.count } }
  /// Different ids among all tokens: what a vocabulary's coverage is judged by.
  public var distinctTokens: Int { Set(samples.flatMap(\.tokens)).count }

  /// Tokens that pass the model together. Fixed, since sums are added up batch by batch.
  private static let batchTokens = 2048

  package var batches: [Batch] {
    var batches: [Batch] = []
    for sample in samples {
      if let last = batches.last, last.tokens.count + sample.tokens.count <= Self.batchTokens {
        let start = last.tokens.count
        batches[batches.count - 1].tokens += sample.tokens
        batches[batches.count - 1].segments += sample.segments.map {
          ($0.lowerBound + start)..<($0.upperBound + start)
        }
      } else {
        batches.append(Batch(tokens: sample.tokens, segments: sample.segments))
      }
    }
    return batches
  }
}

extension CalibrationSet {
  /// Samples of documents: rows of `length` tokens that documents fill back to back, each seeing
  /// only itself and beginning as the tokenizer begins texts; no padding.
  ///
  /// - Parameters:
  ///   - data: in an order that its seed decides.
  ///   - samples: rows that are wanted.
  /// - Throws: `CalibrationError.tooLittleText`, `TrainingError`.
  public static func packed(
    _ data: TrainingData, encoder: ExampleEncoder, samples: Int, length: Int
  ) throws -> CalibrationSet {
    try checkSizes(samples: samples, length: length)
    let source = data.sources.map(\.path).joined(separator: ", ")
    var stream = try TrainingStream(
      data, encoder: encoder,
      options: .init(rows: 1, length: length, mode: .packed, isShuffled: true, passes: 1))
    var found: [Sample] = []
    while found.count < samples, let row = try stream.next() {
      // The last row of a pass ends in padding.
      guard row.padding == 0 else { continue }
      found.append(Sample(tokens: row.inputs, segments: row.segments))
    }
    guard found.count == samples else {
      throw CalibrationError.tooLittleText(
        samples: found.count, wanted: samples, length: length, source: source)
    }
    let name = source.split(separator: "/").last.map(String.init) ?? source
    return CalibrationSet(
      samples: found, origin: "\(name), documents packed, each begins with its BOS")
  }

  /// Ids that were made elsewhere: JSON Lines, an array of token ids each.
  ///
  /// - Throws: `CalibrationError.badTokens` naming the line, `.tooLittleText`.
  public static func tokens(
    file: String, bytes: [UInt8], vocabulary: Int, samples: Int, length: Int
  ) throws -> CalibrationSet {
    try checkSizes(samples: samples, length: length)
    var found: [Sample] = []
    for (number, line) in bytes.split(separator: UInt8(ascii: "\n")).enumerated() {
      guard found.count < samples else { break }
      let ids: [Int]
      do {
        guard let values = try JSON.parse(Array(line), name: file).array else {
          throw CalibrationError.badTokens(
            file: file, line: number + 1, reason: "this is no array")
        }
        ids = values.compactMap(\.int)
        guard ids.count == values.count else {
          throw CalibrationError.badTokens(
            file: file, line: number + 1, reason: "not every member is a whole number")
        }
      } catch let error as JSONError {
        throw CalibrationError.badTokens(file: file, line: number + 1, reason: "\(error)")
      }
      if let bad = ids.first(where: { $0 < 0 || $0 >= vocabulary }) {
        throw CalibrationError.badTokens(
          file: file, line: number + 1, reason: "token \(bad) is not below \(vocabulary)")
      }
      for start in stride(from: 0, to: ids.count, by: length) where found.count < samples {
        found.append(Sample(tokens: Array(ids[start..<min(start + length, ids.count)])))
      }
    }
    guard !found.isEmpty else {
      throw CalibrationError.tooLittleText(
        samples: 0, wanted: samples, length: length, source: file)
    }
    let name = file.split(separator: "/").last.map(String.init) ?? file
    return CalibrationSet(samples: found, origin: "\(name), token ids as they are")
  }

  static func checkSizes(samples: Int, length: Int) throws(CalibrationError) {
    guard samples >= 1 else {
      throw .badSetting("--samples", value: "\(samples)", expected: "1 or more")
    }
    guard length >= 2 else {
      throw .badSetting("--length", value: "\(length)", expected: "2 or more")
    }
  }
}
