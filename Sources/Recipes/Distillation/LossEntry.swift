package import Distillation
package import Models

/// One term of a distillation's loss, as a recipe states it, before any model is looked at.
public struct LossEntry: Sendable, Equatable {
  package enum Kind: Sendable, Equatable {
    /// The true next tokens.
    case labels
    case soft(DistillationDivergence, temperature: Double)
    case hidden(HiddenStateLoss.Settings)
    case attention(AttentionMapLoss.Settings)
    case miniLM(MiniLM.Settings)
    case miniLMv2(MiniLMv2.Settings)
    case relation(RelationalLoss.Settings)
    /// Universal logit distillation, for different vocabularies.
    case sortedProbabilities(temperature: Double)
  }

  package var kind: Kind
  public var weight: Double

  package init(_ kind: Kind, weight: Double = 1) {
    self.kind = kind
    self.weight = weight
  }

  /// One line that tells entries apart, for the identity of a run.
  package var summary: String { "\(weight) × \(kind)" }
}

/// The losses of a distillation between two particular models.
package struct LossTerms {
  package var logits: [DistillationObjective.Weighted<any LogitLoss>] = []
  package var states: [DistillationObjective.Weighted<any StateLoss>] = []

  /// - Parameters:
  ///   - form: what the teacher gives: logits, or its most probable tokens.
  ///   - common: tokens in common where vocabularies are padded.
  /// - Throws: `DistillationError` where a loss does not fit the models.
  package init(
    _ entries: [LossEntry], student: ModelConfiguration, teacher: ModelConfiguration,
    form: SoftTargetLoss.TeacherForm, common: Int? = nil
  ) throws(DistillationError) {
    let (s, t) = (StateShape(student), StateShape(teacher))
    for entry in entries {
      func add(_ loss: any LogitLoss) { logits.append(.init(loss, weight: entry.weight)) }
      func add(_ loss: any StateLoss) { states.append(.init(loss, weight: entry.weight)) }
      switch entry.kind {
      case .labels: add(LabelLoss())
      case .soft(let divergence, let temperature):
        add(
          try SoftTargetLoss(
            divergence, temperature: temperature, teacherForm: form, commonVocabulary: common))
      case .hidden(let settings): add(try HiddenStateLoss(settings, student: s, teacher: t))
      case .attention(let settings): add(try AttentionMapLoss(settings, student: s, teacher: t))
      case .miniLM(let settings): add(try MiniLM(settings, student: s, teacher: t))
      case .miniLMv2(let settings): add(try MiniLMv2(settings, student: s, teacher: t))
      case .relation(let settings): add(try RelationalLoss(settings, student: s, teacher: t))
      case .sortedProbabilities(let temperature):
        add(try SortedProbabilityLoss(temperature: temperature))
      }
    }
  }
}
