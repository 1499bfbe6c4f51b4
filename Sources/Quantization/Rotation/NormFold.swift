import LinearAlgebra
import Models

/// What becomes of a norm whose output is to be a rotated vector.
///
/// A weight that differs between channels does not commute with a rotation and moves into the columns
/// of the matrices behind. A bias b moves into their biases, W b; behind the final norm there are none,
/// so it stays, as `(b / w) Q`.
struct NormFold {
  /// What columns of the matrices behind are multiplied by; nil where they are left alone.
  let scale: [Float]?
  /// What the biases of the matrices behind gain, multiplied by the matrix; nil for nothing.
  let shift: [Float]?
  /// The norm's tensors as they are from now on, by ending; nil where they stay.
  let weight: Float?
  let bias: [Float]?

  /// - Parameters:
  ///   - weight: as stored; nil for none.
  ///   - consumersHaveBiases: whether a bias can move behind.
  ///   - rotation: of the norm's output.
  /// - Returns: nil where a bias has nowhere to go.
  init?(
    _ norm: NormConfiguration, weight: [Float]?, bias: [Float]?, consumersHaveBiases: Bool,
    rotation: Rotation
  ) {
    var offset: Float = 0
    if case .rootMeanSquare(let stated) = norm.kind { offset = stated }
    let effective = weight.map { $0.map { $0 + offset } }
    let isUniform = effective.map { values in values.allSatisfy { $0 == values[0] } } ?? true
    let hasBias = bias?.contains { $0 != 0 } ?? false
    let one = isUniform ? effective?.first ?? 1 : 1
    scale = isUniform ? nil : effective
    self.weight = isUniform ? nil : 1 - offset
    guard let bias, hasBias else {
      shift = nil
      self.bias = nil
      return
    }
    if consumersHaveBiases {
      shift = bias
      self.bias = bias.map { _ in 0 }
      return
    }
    shift = nil
    var moved = bias
    if let scale {
      guard zip(bias, scale).allSatisfy({ $0 == 0 || abs($0 / $1) < 1e4 * abs(one) }) else {
        return nil
      }
      moved = zip(bias, scale).map { $0 == 0 ? 0 : $0 / $1 }
    }
    moved.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return }
      rotation.rotateRows(base, lines: 1, stride: buffer.count)
    }
    self.bias = moved
  }
}
