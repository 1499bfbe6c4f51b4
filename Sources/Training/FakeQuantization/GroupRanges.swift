import CKernels
package import Codecs
package import Tensors

extension AffineGroups {
  /// Where the numbers of each group end: the smallest and largest, zero included, as the codec's grids
  /// have them. Recorded where the weight is; a gradient goes to the number that is the end.
  ///
  /// - Parameter weight: float32 `[outputs, inputs]`.
  /// - Returns: `lower` ≤ 0 ≤ `upper`, each of `scaleShape`.
  package func ranges(of weight: Tensor) -> (lower: Tensor, upper: Tensor) {
    let (rows, columns) = (weight.rows, weight.columns)
    let (size, count) = (groupSize(inputs: columns), groupCount(inputs: columns))
    func uninitialized(_ type: DType) -> Tensor {
      Tensor(
        dtype: type, shape: [rows, count], storage: Storage(byteCount: rows * count * 4))
    }
    let ends = [uninitialized(.float32), uninitialized(.float32)]
    let places = [uninitialized(.int32), uninitialized(.int32)]
    let targets = Unshared(
      (
        UnsafeMutablePointer(mutating: ends[0].floats),
        UnsafeMutablePointer(mutating: ends[1].floats), mutable(places[0]), mutable(places[1])
      ))
    let source = Unshared(weight.detached.floats)
    Parallel.ranges(rows, of: rowsPerPiece(columns)) { range in
      let (lows, highs, lowColumns, highColumns) = targets.value
      for row in range {
        let at = row * count
        pare_group_ranges_row(
          source.value + row * columns, columns, size, lows + at, highs + at, lowColumns + at,
          highColumns + at)
      }
    }
    let recorded = zip(ends, places).enumerated().map { index, pair in
      end(pair.0, at: pair.1, of: weight, isUpper: index == 1)
    }
    return (recorded[0], recorded[1])
  }

  /// The ends with their backward rule, one for all rows where the whole tensor shares a grid.
  private func end(_ ends: Tensor, at columns: Tensor, of weight: Tensor, isUpper: Bool) -> Tensor {
    let (width, perRow) = (weight.columns, ends.columns)
    let place = weight.place
    let found = mutable(columns)
    guard granularity == .tensor else {
      return ends.reshaped(scaleShape(outputs: weight.rows, inputs: width))
        .recorded(from: weight) { [columns] gradient in
          place.accumulate { target in
            withExtendedLifetime(columns) {
              for index in 0..<gradient.count where found[index] >= 0 {
                target[index / perRow * width + Int(found[index])] += gradient.floats[index]
              }
            }
          }
        }
    }
    var best = 0
    for row in 1..<max(ends.rows, 1) {
      let isFurther =
        isUpper ? ends.floats[row] > ends.floats[best] : ends.floats[row] < ends.floats[best]
      if isFurther { best = row }
    }
    let column = Int(found[best])
    return Tensor([ends.floats[best]], shape: [1]).recorded(from: weight) { gradient in
      guard column >= 0 else { return }
      place.accumulate { $0[best * width + column] += gradient.floats[0] }
    }
  }
}

private func mutable(_ tensor: Tensor) -> UnsafeMutablePointer<Int32> {
  UnsafeMutableRawPointer(mutating: tensor.rawPointer).assumingMemoryBound(to: Int32.self)
}

/// Rows that one piece of parallel work covers, by the width alone.
func rowsPerPiece(_ columns: Int) -> Int { max(1, (1 << 15) / max(columns, 1)) }
