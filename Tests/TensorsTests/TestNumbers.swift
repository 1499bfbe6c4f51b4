import Tensors

/// Reproducible numbers: uniform in -scale ..< scale.
struct TestNumbers {
  private var random: Xoshiro256

  init(_ seed: UInt64) { random = Xoshiro256(seed: seed) }

  mutating func floats(_ count: Int, scale: Float = 1) -> [Float] {
    (0..<count).map { _ in (Float(random.uniform()) * 2 - 1) * scale }
  }

  mutating func tensor(_ shape: [Int], scale: Float = 1) -> Tensor {
    Tensor(floats(shape.reduce(1, *), scale: scale), shape: shape)
  }
}

extension Tensor {
  var array: [Float] { Array(UnsafeBufferPointer(start: floats, count: count)) }
  var doubles: [Double] { array.map(Double.init) }
}

/// Every length around the widths of vectors, and some beyond.
let tails = Array(0...70) + [127, 128, 129, 255, 1000, 1023]
