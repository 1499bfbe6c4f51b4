import CKernels

/// How far a student's distribution q is from a teacher's p, both over the vocabulary.
package enum DistillationDivergence: Sendable, Hashable {
  /// Σ p log(p/q): q covers all that p holds likely (Hinton et al. 2015, arXiv:1503.02531).
  case forwardKL
  /// Σ q log(q/p): q stays within what p holds likely (Gu et al. 2024, arXiv:2306.08543).
  case reverseKL
  /// The sum, not the half, of forward and reverse KL (Jeffreys 1946).
  case jeffreys
  /// β KL(p‖m) + (1−β) KL(q‖m) with m = β p + (1−β) q (Agarwal et al. 2024, arXiv:2306.13649,
  /// section 2). It tends to zero like β times the forward KL at one end and (1−β) times the reverse
  /// KL at the other; at exactly 0 and 1 it is those KLs themselves, as in TRL.
  case jensenShannon(beta: Double = 0.5)
  /// KL(p ‖ α p + (1−α) q) (Ko et al. 2024, arXiv:2402.03898, section 3.1).
  case skewForwardKL(alpha: Double = 0.1)
  /// KL(q ‖ (1−α) p + α q) (ibid.).
  case skewReverseKL(alpha: Double = 0.1)
  /// ½ Σ |p − q|, with the subgradient 0 where p = q (Wen et al. 2023, arXiv:2307.15190).
  case totalVariation
  /// Forward KL to softmax((1−t) student + t teacher), where the student in the target is taken as
  /// constant and t goes with the training from `start` to `end` in a line (Shing et al. 2025,
  /// arXiv:2501.16937, equation 1; their adaptive steps on top of the line are left out).
  case taid(start: Double = 0.4, end: Double = 1)

  /// The names that `init(named:)` knows.
  package static let names = [
    "kl", "reverse_kl", "jeffreys", "jsd", "skew_kl", "skew_reverse_kl", "total_variation", "taid",
  ]

  /// As recipes and logs call it.
  package var name: String {
    switch self {
    case .forwardKL: "kl"
    case .reverseKL: "reverse_kl"
    case .jeffreys: "jeffreys"
    case .jensenShannon: "jsd"
    case .skewForwardKL: "skew_kl"
    case .skewReverseKL: "skew_reverse_kl"
    case .totalVariation: "total_variation"
    case .taid: "taid"
    }
  }

  /// - Parameters:
  ///   - beta: of `jsd`, 0.5 if not given.
  ///   - alpha: of the skew divergences, 0.1 if not given.
  ///   - start: of `taid`, 0.4 if not given.
  package init(
    named name: String, beta: Double? = nil, alpha: Double? = nil, start: Double? = nil
  ) throws(DistillationError) {
    switch name {
    case "kl": self = .forwardKL
    case "reverse_kl": self = .reverseKL
    case "jeffreys": self = .jeffreys
    case "jsd": self = .jensenShannon(beta: beta ?? 0.5)
    case "skew_kl": self = .skewForwardKL(alpha: alpha ?? 0.1)
    case "skew_reverse_kl": self = .skewReverseKL(alpha: alpha ?? 0.1)
    case "total_variation": self = .totalVariation
    case "taid": self = .taid(start: start ?? 0.4)
    default:
      throw .badSetting(
        "divergence", value: name, expected: "one of \(Self.names.joined(separator: ", "))")
    }
    try validate()
  }

  /// - Throws: `badSetting`
  package func validate() throws(DistillationError) {
    switch self {
    case .jensenShannon(let beta):
      guard (0...1).contains(beta) else {
        throw .badSetting("beta", value: "\(beta)", expected: "from 0 to 1")
      }
    case .skewForwardKL(let alpha), .skewReverseKL(let alpha):
      guard (0..<1).contains(alpha) else {
        throw .badSetting("alpha", value: "\(alpha)", expected: "at least 0 and below 1")
      }
    case .taid(let start, let end):
      guard (0...1).contains(start) else {
        throw .badSetting("start", value: "\(start)", expected: "from 0 to 1")
      }
      guard (start...1).contains(end) else {
        throw .badSetting("end", value: "\(end)", expected: "from start, \(start), to 1")
      }
    case .forwardKL, .reverseKL, .jeffreys, .totalVariation: break
    }
  }

  /// The kernel's settings at a place in the training.
  func kernel(temperature: Double, progress: Double) -> pare_divergence_loss {
    func settings(
      _ kind: pare_divergence_kind, share: Double = 0, teacher: Float = 0, student: Float = 0,
      target: Double = 1
    ) -> pare_divergence_loss {
      .init(
        kind: kind, temperature: Float(temperature), share: Float(share), teacher_part: teacher,
        student_part: student, target_share: Float(target))
    }
    switch self {
    case .forwardKL, .jensenShannon(beta: 0), .skewForwardKL(alpha: 0):
      return settings(PARE_FORWARD_KL)
    case .reverseKL, .jensenShannon(beta: 1), .skewReverseKL(alpha: 0):
      return settings(PARE_REVERSE_KL)
    case .jeffreys: return settings(PARE_JEFFREYS)
    case .jensenShannon(let beta):
      return settings(
        PARE_MIXTURE, share: beta, teacher: Float(beta), student: Float(1 - beta))
    case .skewForwardKL(let alpha): return settings(PARE_MIXTURE, share: alpha, teacher: 1)
    case .skewReverseKL(let alpha): return settings(PARE_MIXTURE, share: 1 - alpha, student: 1)
    case .totalVariation: return settings(PARE_TOTAL_VARIATION)
    case .taid(let start, let end):
      let target = start + (end - start) * min(max(progress, 0), 1)
      return settings(PARE_FORWARD_KL, target: target)
    }
  }
}
