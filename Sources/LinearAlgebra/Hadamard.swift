import CKernels
import Tensors

/// Multiplication by a Hadamard matrix `H` of size n, divided by √n so that it is orthogonal, in
/// n log n steps: `H` is the product of Paley's matrix of size m and Sylvester's of size n / m, a
/// power of two. Its first row is constant.
public struct Hadamard: Sendable {
  public let size: Int
  /// m, 1 for powers of two.
  public let coreSize: Int
  /// `[m, m]`, ±1.
  private let core: [Float]

  /// - Parameter size: 1, 2, or a multiple of 4 of which Paley's constructions know a part: 12, 20,
  ///   24, 28, 36, 40, 44 … times a power of two; nil for others.
  public init?(size: Int) {
    guard size > 0 else { return nil }
    self.size = size
    var odd = size
    while odd % 2 == 0 { odd /= 2 }
    guard odd > 1 else {
      coreSize = 1
      core = [1]
      return
    }
    var candidate = 4 * odd
    while candidate <= min(size, PaleyMatrix.largest) {
      if size % candidate == 0, let matrix = PaleyMatrix.make(candidate) {
        coreSize = candidate
        core = matrix
        return
      }
      candidate *= 2
    }
    return nil
  }

  /// In place, each column of `[n, width]`: x becomes `H x / √n`, or `Hᵀ x / √n`.
  ///
  /// - Parameters:
  ///   - x: n vectors of `width` floats.
  ///   - scratch: as large as `x`; not needed for powers of two.
  package func transform(
    _ x: UnsafeMutablePointer<Float>, width: Int, transposed: Bool = false,
    scratch: UnsafeMutablePointer<Float>?
  ) {
    let part = size / coreSize
    let scale = Float(1 / Double(size).squareRoot())
    for index in 0..<coreSize { pare_hadamard(x + index * part * width, part, width) }
    guard coreSize > 1, let scratch else {
      pare_scale(x, scale, x, size * width)
      return
    }
    pare_hadamard_core(core, coreSize, transposed ? 1 : 0, x, scale, scratch, part * width)
    x.update(from: scratch, count: size * width)
  }
}
