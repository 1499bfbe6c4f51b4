package import Models
package import Tokenizers

/// A teacher as a student with its own vocabulary can learn from it.
package enum Vocabularies {
  /// Compares, and gives the teacher in the form that fits, or refuses.
  ///
  /// - Parameters:
  ///   - teacher: with its tokenizer.
  ///   - student: its tokenizer and the rows of its head.
  ///   - losses: on logits, that will ask the teacher.
  ///   - readsStates: whether losses on states will.
  /// - Throws: `vocabulariesDiffer` when the vocabularies are different and a loss compares tokens one
  ///   by one; `vocabularyTooSmall`.
  package static func fit(
    _ teacher: LanguageModel, tokenizer: Tokenizer, student: (tokenizer: Tokenizer, rows: Int),
    losses: [any LogitLoss], readsStates: Bool = false
  ) throws(DistillationError) -> (teacher: any Teacher, match: VocabularyMatch) {
    let rows = teacher.configuration.vocabularySize
    let match = try VocabularyMatch(student: student, teacher: (tokenizer, rows))
    switch match {
    case .equal: return (ModelTeacher(teacher), match)
    case .padded:
      let model = ModelTeacher(teacher)
      return (
        rows == student.rows ? model : PaddedTeacher(model, vocabularySize: student.rows), match
      )
    case .different(let shared):
      let others = losses.filter { $0.needsTeacher && !($0 is SortedProbabilityLoss) }
      guard others.isEmpty, !readsStates else {
        throw .tokensDiffer(
          loss: others.first?.name ?? "a loss on states", shared: shared,
          of: student.tokenizer.vocabularySize)
      }
      return (
        CrossTokenizerTeacher(
          teacher, tokenizer: tokenizer, studentTokenizer: student.tokenizer,
          beginToken: teacher.configuration.beginToken.flatMap { $0 < rows ? $0 : nil }), match
      )
    }
  }
}
