#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Cosines and sines of every rotated pair at some positions (Su et al. 2021, arXiv:2104.09864).
/// Pairs are (i, i + dimensions / 2), as in the Hugging Face layout. Angles are float32 products, so
/// that they agree with transformers at large positions.
public struct RotaryTable: Sendable {
  public let positions: Range<Int>
  /// Rotated leading dimensions of a head.
  public let dimensions: Int
  /// `[positions, dimensions / 2]`
  let cosines: [Float]
  let sines: [Float]

  /// - Parameters:
  ///   - inverseFrequencies: radians per position of each pair.
  ///   - attentionScaling: factor on cosines and sines (YaRN, LongRoPE).
  public init(
    inverseFrequencies: [Float], positions: Range<Int>, attentionScaling: Float = 1
  ) {
    self.positions = positions
    dimensions = inverseFrequencies.count * 2
    let angles = positions.flatMap { position in inverseFrequencies.map { Float(position) * $0 } }
    cosines = angles.map { cosf($0) * attentionScaling }
    sines = angles.map { sinf($0) * attentionScaling }
  }
}

extension Tensor {
  /// Rotates every head of every row by its position.
  ///
  /// - Parameters:
  ///   - table: must cover `start ..< start + rows`.
  ///   - start: position of the first row.
  /// - Returns: as `self`, `[tokens, heads · headDim]`; dimensions beyond the table's are unchanged.
  public func rotated(by table: RotaryTable, heads: Int, headDim: Int, start: Int) -> Tensor {
    precondition(columns == heads * headDim && table.dimensions <= headDim)
    precondition(table.positions.lowerBound <= start)
    precondition(start + rows <= table.positions.upperBound)
    let (columns, half) = (columns, table.dimensions / 2)
    let source = Unshared(floats)
    let first = start - table.positions.lowerBound
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(rows, of: max(1, Self.pieceSize / columns)) { range in
        table.cosines.withUnsafeBufferPointer { cosines in
          table.sines.withUnsafeBufferPointer { sines in
            for row in range {
              let angle = (first + row) * half
              for head in 0..<heads {
                let x = source.value + row * columns + head * headDim
                let y = target.value + row * columns + head * headDim
                for i in 0..<half {
                  let (c, s) = (cosines[angle + i], sines[angle + i])
                  y[i] = x[i] * c - x[i + half] * s
                  y[i + half] = x[i + half] * c + x[i] * s
                }
                for i in stride(from: 2 * half, to: headDim, by: 1) { y[i] = x[i] }
              }
            }
          }
        }
      }
    }
  }
}
