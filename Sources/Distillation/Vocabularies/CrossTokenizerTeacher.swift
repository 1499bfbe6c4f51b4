package import Models
import Tensors
package import Tokenizers
package import Training

/// A teacher that reads the student's texts in its own tokens, and speaks at the places where the spans
/// of both tokenizations end together.
///
/// Its rows are over its own vocabulary. A row for a place where no span of its own ends begins with
/// NaN, which is how `SortedProbabilityLoss` knows that nothing is said; no other loss takes this
/// teacher.
package final class CrossTokenizerTeacher: Teacher {
  package let model: LanguageModel
  private let tokenizer: Tokenizer
  private let studentTokenizer: Tokenizer
  private let beginToken: Int?
  private var hidden: Tensor?
  /// For each place of the student's batch the teacher's row.
  private var places: [Int?] = []
  /// Wanted predictions so far, and those of them that had a partner.
  package private(set) var wanted = 0
  package private(set) var aligned = 0

  /// - Parameter beginToken: starts the teacher's texts where its post-processor adds nothing.
  package init(
    _ model: LanguageModel, tokenizer: Tokenizer, studentTokenizer: Tokenizer,
    beginToken: Int? = nil
  ) {
    self.model = model.detached
    self.tokenizer = tokenizer
    self.studentTokenizer = studentTokenizer
    self.beginToken = beginToken
  }

  package var vocabularySize: Int { model.configuration.vocabularySize }
  /// The share of predictions that the teacher speaks at.
  package var alignedShare: Double { Double(aligned) / Double(max(wanted, 1)) }

  package func begin(_ batch: TrainingBatch, wanting wish: StateWish) throws -> PassStates? {
    guard wish == .none else {
      throw DistillationError.badSetting(
        "the teacher of a loss on states", value: "one with another tokenizer",
        expected: "one with the student's tokens")
    }
    places = [Int?](repeating: nil, count: batch.inputs.count)
    hidden = nil
    var (tokens, segments): ([Int], [Range<Int>]) = ([], [])
    for segment in batch.segments {
      let wanted = segment.filter { batch.weights[$0] != 0 }
      guard !wanted.isEmpty else { continue }
      self.wanted += wanted.count
      let spans = try TokenSpans(Array(batch.inputs[segment]), studentTokenizer)
      let own = try TokenSpans(try teacherTokens(spans.text), tokenizer)
      let partners = spans.aligned(with: own)
      let start = tokens.count
      for place in wanted {
        guard let partner = partners[place - segment.lowerBound] else { continue }
        places[place] = start + partner
        aligned += 1
      }
      guard !own.tokens.isEmpty else { continue }
      tokens += own.tokens
      segments.append(start..<tokens.count)
    }
    guard !tokens.isEmpty else { return nil }
    hidden = try model.hidden(tokens: tokens, segments: segments)
    return nil
  }

  /// As many tokens as the teacher can read.
  private func teacherTokens(_ text: [UInt8]) throws -> [Int] {
    var tokens = try tokenizer.encode(text)
    if let beginToken, tokens.first != beginToken { tokens.insert(beginToken, at: 0) }
    return Array(tokens.prefix(model.configuration.contextLength ?? tokens.count))
  }

  package func rows(_ wanted: [Int]) throws -> TeacherRows {
    let width = vocabularySize
    let partners = wanted.map { places[$0] }
    let spoken = partners.compactMap { $0 }
    guard let hidden, !spoken.isEmpty else {
      return .logits(
        Tensor(
          [Float](repeating: .nan, count: wanted.count * width),
          shape: [wanted.count, width]))
    }
    let logits = model.logits(hidden.rows(at: spoken))
    if spoken.count == wanted.count { return .logits(logits) }
    return .logits(
      Tensor(shape: [wanted.count, width]) { target in
        guard let base = target.baseAddress else { return }
        var next = 0
        for (row, partner) in partners.enumerated() {
          if partner == nil {
            (base + row * width).update(repeating: .nan, count: width)
          } else {
            (base + row * width).update(from: logits.floats + next * width, count: width)
            next += 1
          }
        }
      })
  }
}
