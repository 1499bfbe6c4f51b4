#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The gradient of a reverse divergence between sequences, as factors on two gradients at each
/// token (Gu et al. 2024, arXiv:2306.08543, sections 2.1 and 2.2). For student q, teacher p and a
/// text y₁ … y_T drawn from p̃ = α p + (1 − α) q:
///
///     ∇KL(q ‖ p) = E Σ_t [ single_t ∇KL(q(·|y_<t) ‖ p(·|y_<t)) − future_t ∇log q(y_t|y_<t) ]
///
/// where the first term is a sum over the whole vocabulary instead of a sample (single-step
/// decomposition) and the second carries the rewards r_t' = log p(y_t') − log q(y_t') of later
/// tokens.
package struct PolicyGradient: Sendable, Equatable {
  /// How tokens that p̃ and q give different probability are weighted.
  package enum Importance: Sendable, Equatable {
    /// w_t = q(y_t) / p̃(y_t): the paper's approximation, of low variance.
    case token
    /// Products of these over all tokens that a term depends on: exact, of high variance.
    case sequence
  }

  /// α
  package var teacherShare: Double
  package var importance: Importance
  /// Later rewards count by their mean instead of their sum, so that short texts are not preferred.
  package var normalizesLength: Bool
  /// ε: the second term vanishes where it would move a token's weight further out of 1 ± ε
  /// (Schulman et al. 2017, arXiv:1707.06347, equation 7); nil for none.
  package var clip: Double?

  package init(
    teacherShare: Double = 0.2, importance: Importance = .token, normalizesLength: Bool = true,
    clip: Double? = 0.2
  ) {
    self.teacherShare = teacherShare
    self.importance = importance
    self.normalizesLength = normalizesLength
    self.clip = clip
  }

  package struct Factors: Sendable, Equatable {
    package var single: [Double]
    package var future: [Double]
  }

  /// - Parameters:
  ///   - student: log q(y_t | y_<t) of one text's generated tokens.
  ///   - teacher: log p(y_t | y_<t).
  package func factors(student: [Double], teacher: [Double]) -> Factors {
    precondition(student.count == teacher.count)
    let count = student.count
    let rewards = zip(teacher, student).map { $0 - $1 }
    // q / p̃ = 1 / (α p/q + 1 − α)
    let ratios = rewards.map { 1 / (teacherShare * exp($0) + 1 - teacherShare) }
    var factors = Factors(
      single: [Double](repeating: 1, count: count), future: [Double](repeating: 0, count: count))
    switch importance {
    case .token:
      factors.single = ratios
      var sum = 0.0
      for t in (0..<count).reversed() {
        factors.future[t] = ratios[t] * mean(sum, of: count - 1 - t)
        sum += rewards[t]
      }
    case .sequence:
      // The step at t depends on the tokens before it; a reward, on those up to its own.
      var product = 1.0
      var weighted = rewards
      for t in 0..<count {
        factors.single[t] = product
        product *= ratios[t]
        weighted[t] *= product
      }
      var sum = 0.0
      for t in (0..<count).reversed() {
        factors.future[t] = mean(sum, of: count - 1 - t)
        sum += weighted[t]
      }
    }
    if let clip {
      for t in 0..<count {
        let isBeyond =
          factors.future[t] > 0 ? ratios[t] > 1 + clip : ratios[t] < 1 - clip
        if isBeyond { factors.future[t] = 0 }
      }
    }
    return factors
  }

  private func mean(_ sum: Double, of count: Int) -> Double {
    normalizesLength ? sum / Double(max(count, 1)) : sum
  }
}
