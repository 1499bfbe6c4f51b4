package import Distillation
import Training

/// What the user wants of a distillation: a training whose target is what teachers say.
public struct DistillationRequest: Sendable {
  /// Where the student comes from.
  public enum Student: Sendable, Equatable {
    /// A model's folder: from a cut, a quantization, another training.
    case model(String)
    /// The teacher's family in other sizes, from random numbers: `layers=4,hidden=128`.
    case random(shape: String)
    /// The teacher's own layers and widths: `layers` is uniform, first, last, importance or a list.
    case cut(shape: String, layers: String)
  }

  /// How batches are made and what is done with them.
  public enum Method: Sendable, Equatable {
    /// The losses on the text of the data.
    case text
    /// The teacher's outputs in place of the data (Kim and Rush 2016).
    case sequence
    /// Student's samples in a share of the steps (GKD).
    case gkd(share: Double)
    /// Policy gradient of the reverse KL.
    case miniLLM
    /// Adaptive replay of the student's samples.
    case distiLLM
    /// The teacher is an average of the student.
    case average(decay: Double)
    /// The student's deepest exit teaches its earlier ones.
    case exits
  }

  public enum Weighting: String, Sendable, CaseIterable {
    case mean, entropy, likelihood, domain
  }

  public var training: TrainingRequest
  public var teachers: [String]
  public var student: Student
  public var method = Method.text
  public var losses: [LossEntry]
  /// As the user named it, for reports.
  public var methodName = "soft"
  public var weighting = Weighting.mean
  package var continuation = ContinuationSettings()
  /// A file with the teacher's most probable tokens; made if it is not there.
  public var cache: String?
  /// Tokens kept at each position of the cache.
  public var cacheTop = 128

  public init(
    training: TrainingRequest, teachers: [String], student: Student, losses: [LossEntry]
  ) {
    self.training = training
    self.teachers = teachers
    self.student = student
    self.losses = losses
  }

  /// The losses that a method is known by.
  ///
  /// - Parameters:
  ///   - softWeight: of the teacher's side; the labels' is the rest.
  /// - Returns: nil for an unknown name.
  package static func losses(
    of method: String, divergence: DistillationDivergence?, temperature: Double, softWeight: Double
  ) -> [LossEntry]? {
    let labels = LossEntry(.labels, weight: 1 - softWeight)
    func soft(_ fallback: DistillationDivergence) -> LossEntry {
      LossEntry(.soft(divergence ?? fallback, temperature: temperature), weight: softWeight)
    }
    func mixed(_ states: [LossEntry]) -> [LossEntry] {
      (softWeight < 1 ? [labels] : []) + [soft(.forwardKL)] + states
    }
    switch method {
    case "labels": return [LossEntry(.labels)]
    case "soft", "born-again", "ema": return mixed([])
    case "taid": return [soft(.taid())]
    case "hidden": return mixed([LossEntry(.hidden(.init()), weight: 1)])
    case "fitnets": return mixed([LossEntry(.hidden(.fitNets), weight: 0.5)])
    case "tinybert":
      return mixed([LossEntry(.hidden(.tinyBERT)), LossEntry(.attention(.tinyBERT), weight: 0.1)])
    case "mobilebert":
      return mixed([LossEntry(.hidden(.mobileBERT)), LossEntry(.attention(.mobileBERT))])
    case "distilbert": return mixed([LossEntry(.hidden(.distilBERT))])
    case "minilm": return mixed([LossEntry(.miniLM(.init()))])
    case "minilm-v2": return mixed([LossEntry(.miniLMv2(.init()))])
    case "rkd-distance": return mixed([LossEntry(.relation(.init(relation: .distance)))])
    case "rkd-angle": return mixed([LossEntry(.relation(.init(relation: .angle)))])
    case "rkd-tokens":
      return mixed([LossEntry(.relation(.init(relation: .distance, items: .tokens)))])
    case "sequence": return [LossEntry(.labels)]
    case "gkd": return [soft(.jensenShannon())]
    case "minillm": return [soft(.reverseKL)]
    case "distillm": return [soft(.skewForwardKL())]
    case "exits": return [soft(.forwardKL)]
    case "uld":
      return [
        labels, LossEntry(.sortedProbabilities(temperature: temperature), weight: softWeight),
      ]
    default: return nil
    }
  }

  public static let methodNames = [
    "labels", "soft", "taid", "hidden", "fitnets", "tinybert", "mobilebert", "distilbert", "minilm",
    "minilm-v2", "rkd-distance", "rkd-angle", "rkd-tokens", "uld", "sequence", "gkd", "minillm",
    "distillm", "born-again", "ema", "exits",
  ]
}
