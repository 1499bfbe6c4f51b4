import Distillation
import Foundation

/// Divergences in double precision, written from the papers' definitions, and their derivatives by
/// central differences.
enum DivergenceOracle {
  static func softmax(_ logits: [Double]) -> [Double] {
    let top = logits.max() ?? 0
    let exponentials = logits.map { exp($0 - top) }
    let sum = exponentials.reduce(0, +)
    return exponentials.map { $0 / sum }
  }

  static func kl(_ p: [Double], _ q: [Double]) -> Double {
    zip(p, q).reduce(0) { $0 + ($1.0 > 0 ? $1.0 * log($1.0 / $1.1) : 0) }
  }

  static func mix(_ share: Double, _ p: [Double], _ q: [Double]) -> [Double] {
    zip(p, q).map { share * $0 + (1 - share) * $1 }
  }

  /// - Parameter constant: the student's logits inside TAID's target.
  static func value(
    _ divergence: DistillationDivergence, student: [Double], teacher: [Double],
    temperature: Double = 1, progress: Double = 0, constant: [Double]? = nil
  ) -> Double {
    let p = softmax(teacher.map { $0 / temperature })
    let q = softmax(student.map { $0 / temperature })
    let value: Double
    switch divergence {
    case .forwardKL: value = kl(p, q)
    case .reverseKL: value = kl(q, p)
    case .jeffreys: value = kl(p, q) + kl(q, p)
    case .jensenShannon(0): value = kl(p, q)
    case .jensenShannon(1): value = kl(q, p)
    case .jensenShannon(let beta):
      let m = mix(beta, p, q)
      value = beta * kl(p, m) + (1 - beta) * kl(q, m)
    case .skewForwardKL(let alpha): value = kl(p, mix(alpha, p, q))
    case .skewReverseKL(let alpha): value = kl(q, mix(1 - alpha, p, q))
    case .totalVariation: value = zip(p, q).reduce(0) { $0 + abs($1.0 - $1.1) } / 2
    case .taid(let start, let end):
      let t = start + (end - start) * progress
      let target = zip(constant ?? student, teacher).map { ((1 - t) * $0 + t * $1) / temperature }
      value = kl(softmax(target), q)
    }
    return value * temperature * temperature
  }

  static func derivative(_ student: [Double], _ value: ([Double]) -> Double) -> [Double] {
    let step = 1e-5
    return student.indices.map { index in
      var (below, above) = (student, student)
      below[index] -= step
      above[index] += step
      return (value(above) - value(below)) / (2 * step)
    }
  }

  static func gradient(
    _ divergence: DistillationDivergence, student: [Double], teacher: [Double],
    temperature: Double = 1, progress: Double = 0
  ) -> [Double] {
    derivative(student) {
      value(
        divergence, student: $0, teacher: teacher, temperature: temperature, progress: progress,
        constant: student)
    }
  }

  /// The masses of some tokens and of all others.
  static func coarse(_ p: [Double], _ ids: [Int]) -> [Double] {
    let others = p.indices.filter { !ids.contains($0) }.reduce(0) { $0 + p[$1] }
    return ids.map { p[$0] } + [others]
  }
}

let everyDivergence: [DistillationDivergence] = [
  .forwardKL, .reverseKL, .jeffreys, .jensenShannon(), .jensenShannon(beta: 0.1),
  .jensenShannon(beta: 0.9), .jensenShannon(beta: 0), .jensenShannon(beta: 1), .skewForwardKL(),
  .skewForwardKL(alpha: 0.6), .skewReverseKL(), .skewReverseKL(alpha: 0.6), .totalVariation,
  .taid(), .taid(start: 0),
]
