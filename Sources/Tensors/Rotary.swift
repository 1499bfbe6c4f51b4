import CKernels

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

  /// The rows of several tables one after the other, counted from 0: texts whose frequencies differ.
  package init(joining tables: [RotaryTable]) {
    precondition(tables.allSatisfy { $0.dimensions == tables[0].dimensions })
    positions = 0..<tables.reduce(0) { $0 + $1.positions.count }
    dimensions = tables.first?.dimensions ?? 0
    cosines = tables.flatMap(\.cosines)
    sines = tables.flatMap(\.sines)
  }
}

extension Tensor {
  /// Rotates every head of every row by its position.
  ///
  /// - Parameters:
  ///   - table: must cover all positions.
  ///   - start: position of the first row; the others follow.
  /// - Returns: as `self`, `[tokens, heads · headDim]`; dimensions beyond the table's are unchanged.
  public func rotated(by table: RotaryTable, heads: Int, headDim: Int, start: Int) -> Tensor {
    rotated(by: table, heads: heads, headDim: headDim, segments: [start..<(start + rows)])
  }

  /// Rotates every head of every row by its position, where the rows are those of several texts.
  ///
  /// - Parameter segments: the positions of each text's rows, text after text.
  package func rotated(
    by table: RotaryTable, heads: Int, headDim: Int, segments: [Range<Int>]
  ) -> Tensor {
    precondition(columns == heads * headDim && table.dimensions <= headDim)
    precondition(rows == segments.reduce(0) { $0 + $1.count })
    precondition(
      segments.allSatisfy {
        table.positions.lowerBound <= $0.lowerBound && $0.upperBound <= table.positions.upperBound
      })
    let angles = segments.flatMap { $0.map { $0 - table.positions.lowerBound } }
    let rotated = rotated(angles, table, heads, headDim, direction: 1)
    return rotated.recorded(from: self) { [place] gradient in
      // The transpose of a rotation turns the other way.
      place.receive(gradient.rotated(angles, table, heads, headDim, direction: -1))
    }
  }

  /// - Parameter angles: the table's row for each row.
  private func rotated(
    _ angles: [Int], _ table: RotaryTable, _ heads: Int, _ headDim: Int, direction: Float
  ) -> Tensor {
    let (columns, half) = (columns, table.dimensions / 2)
    let source = Unshared(floats)
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(rows, of: max(1, Self.pieceSize / columns)) { range in
        table.cosines.withUnsafeBufferPointer { cosines in
          table.sines.withUnsafeBufferPointer { sines in
            guard let cosines = cosines.baseAddress, let sines = sines.baseAddress else { return }
            for row in range {
              let angle = angles[row] * half
              for head in 0..<heads {
                let at = row * columns + head * headDim
                pare_rotate(
                  source.value + at, cosines + angle, sines + angle, direction, half, headDim,
                  target.value + at)
              }
            }
          }
        }
      }
    }
  }
}
