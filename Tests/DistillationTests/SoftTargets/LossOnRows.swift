import Distillation
import Tensors

/// A loss's value and its derivative on rows that a test writes down.
struct LossOnRows {
  var value: Double
  var gradient: [Float]

  init(
    _ loss: SoftTargetLoss, student: Tensor, teacher: TeacherRows, weights: [Float]? = nil,
    factor: Float = 1, progress: Double = 0
  ) throws {
    let rows = LogitRows(
      student: student, teacher: teacher, targets: [Int](repeating: 0, count: student.rows),
      weights: weights ?? [Float](repeating: 1, count: student.rows), progress: progress)
    var gradient = [Float](repeating: 0, count: student.count)
    value = try gradient.withUnsafeMutableBufferPointer { buffer in
      guard let target = buffer.baseAddress else { return 0 }
      return try loss.accumulate(rows, factor: factor, into: target)
    }
    self.gradient = gradient
  }
}

/// Reproducible normal numbers.
struct NormalNumbers {
  private var random: Xoshiro256

  init(_ seed: UInt64) { random = Xoshiro256(seed: seed) }

  mutating func floats(_ count: Int, scale: Double = 1) -> [Float] {
    (0..<count).map { _ in Float(scale * random.normal()) }
  }

  mutating func tensor(_ shape: [Int], scale: Double = 1) -> Tensor {
    Tensor(floats(shape.reduce(1, *), scale: scale), shape: shape)
  }
}

extension Tensor {
  var array: [Float] { Array(UnsafeBufferPointer(start: floats, count: count)) }
}

func largestDifference(_ a: [Float], _ b: [Double]) -> Double {
  zip(a, b).reduce(0) { max($0, abs(Double($1.0) - $1.1)) }
}
