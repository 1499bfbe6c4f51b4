extension Tensor {
  /// Rows by index, widened: an embedding lookup.
  public func rows(at ids: [Int]) -> Tensor {
    precondition(shape.count == 2 && ids.allSatisfy { $0 >= 0 && $0 < shape[0] })
    return Tensor(shape: [ids.count, columns]) { target in
      guard let base = target.baseAddress else { return }
      for (row, id) in ids.enumerated() {
        widen((id * columns)..<((id + 1) * columns), into: base + row * columns)
      }
    }
  }

  /// A copy of some columns of a float32 matrix.
  public func columns(_ range: Range<Int>) -> Tensor {
    precondition(range.lowerBound >= 0 && range.upperBound <= columns)
    return Tensor(shape: [rows, range.count]) { target in
      guard let base = target.baseAddress else { return }
      for row in 0..<rows {
        (base + row * range.count).update(
          from: floats + row * columns + range.lowerBound, count: range.count)
      }
    }
  }

  /// Matrices of one width below each other, in float32.
  public static func stacked(_ parts: [Tensor]) -> Tensor {
    guard parts.count != 1, let first = parts.first else {
      return parts.first ?? Tensor([], shape: [0, 0])
    }
    precondition(parts.allSatisfy { $0.columns == first.columns })
    return Tensor(shape: [parts.reduce(0) { $0 + $1.rows }, first.columns]) { target in
      guard var base = target.baseAddress else { return }
      for part in parts {
        base.update(from: part.floats, count: part.count)
        base += part.count
      }
    }
  }

  /// A transposed copy `[columns, rows]`, in float32.
  public func transposed() -> Tensor {
    precondition(shape.count == 2)
    let (rows, columns) = (shape[0], shape[1])
    let source = widened()
    return Tensor(shape: [columns, rows]) { target in
      // Tiles keep both sides' cache lines in use.
      let tile = 32
      for r0 in stride(from: 0, to: rows, by: tile) {
        for c0 in stride(from: 0, to: columns, by: tile) {
          for r in r0..<min(r0 + tile, rows) {
            for c in c0..<min(c0 + tile, columns) {
              target[c * rows + r] = source.floats[r * columns + c]
            }
          }
        }
      }
    }
  }
}
