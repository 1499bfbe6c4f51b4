package import Tokenizers

/// How a teacher's vocabulary stands to a student's. Found out before anything runs.
package enum VocabularyMatch: Sendable, Equatable {
  /// The same tokens and the same number of rows.
  case equal
  /// The same tokens up to the end of the shorter; the rest are rows without a token, or tokens that
  /// the student's tokenizer never writes.
  case padded(common: Int)
  /// Different tokens; `shared` of the student's have the same spelling in the teacher's.
  case different(shared: Int)

  /// - Parameters:
  ///   - student: its tokenizer and the rows of its head.
  ///   - teacher: likewise.
  /// - Throws: `vocabularyTooSmall` when a tokenizer writes ids that its model has no row for.
  package init(
    student: (tokenizer: Tokenizer, rows: Int), teacher: (tokenizer: Tokenizer, rows: Int)
  ) throws(DistillationError) {
    for (name, side) in [("student", student), ("teacher", teacher)]
    where side.tokenizer.vocabularySize > side.rows {
      throw .vocabularyTooSmall(
        model: name, tokens: side.tokenizer.vocabularySize, rows: side.rows)
    }
    let (ours, theirs) = (student.tokenizer, teacher.tokenizer)
    let common = min(ours.vocabularySize, theirs.vocabularySize)
    guard (0..<common).allSatisfy({ ours.token($0) == theirs.token($0) }) else {
      let shared = (0..<ours.vocabularySize).count { id in
        ours.token(id).map { theirs.id(of: $0) != nil } ?? false
      }
      self = .different(shared: shared)
      return
    }
    let isEqual = ours.vocabularySize == theirs.vocabularySize && student.rows == teacher.rows
    self = isEqual ? .equal : .padded(common: common)
  }

  package var sentence: String {
    switch self {
    case .equal: "Teacher and student have the same vocabulary."
    case .padded(let common):
      "Teacher and student share \(common) tokens; what either has beyond is left alone."
    case .different(let shared):
      "Teacher and student have different vocabularies (\(shared) tokens are spelled alike); "
        + "they are compared where the spans of their tokens end together."
    }
  }
}
