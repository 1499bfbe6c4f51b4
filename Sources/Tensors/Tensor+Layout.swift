import CKernels

extension Tensor {
  /// Rows by index, widened: an embedding lookup.
  public func rows(at ids: [Int]) -> Tensor {
    precondition(shape.count == 2 && ids.allSatisfy { $0 >= 0 && $0 < shape[0] })
    let width = columns
    let found = Tensor(shape: [ids.count, width]) { target in
      guard let base = target.baseAddress else { return }
      for (row, id) in ids.enumerated() {
        widen((id * width)..<((id + 1) * width), into: base + row * width)
      }
    }
    return found.recorded(from: self) { [place] gradient in
      place.accumulate { target in
        // One row after another: a token may come more than once.
        for (row, id) in ids.enumerated() {
          pare_accumulate(1, gradient.floats + row * width, target + id * width, width)
        }
      }
    }
  }

  /// A copy of some columns of a float32 matrix.
  public func columns(_ range: Range<Int>) -> Tensor {
    precondition(range.lowerBound >= 0 && range.upperBound <= columns)
    let (rows, width) = (rows, columns)
    let copy = Tensor(shape: [rows, range.count]) { target in
      guard let base = target.baseAddress else { return }
      for row in 0..<rows {
        (base + row * range.count).update(
          from: floats + row * width + range.lowerBound, count: range.count)
      }
    }
    return copy.recorded(from: self) { [place] gradient in
      place.accumulate { target in
        for row in 0..<rows {
          pare_accumulate(
            1, gradient.floats + row * range.count, target + row * width + range.lowerBound,
            range.count)
        }
      }
    }
  }

  /// Splits `[tokens, units · parts · size]` into `parts` tensors `[tokens, units · size]`, as a fused
  /// query-key-value output that lies head by head is split.
  public func deinterleaved(units: Int, parts: Int, size: Int) -> [Tensor] {
    precondition(columns == units * parts * size)
    let (tokens, source) = (rows, self)
    return (0..<parts).map { part in
      let copy = Tensor(shape: [tokens, units * size]) { target in
        guard let base = target.baseAddress else { return }
        for unit in 0..<(tokens * units) {
          (base + unit * size).update(
            from: source.floats + (unit * parts + part) * size, count: size)
        }
      }
      return copy.recorded(from: self) { [place] gradient in
        place.accumulate { target in
          for unit in 0..<(tokens * units) {
            pare_accumulate(
              1, gradient.floats + unit * size, target + (unit * parts + part) * size, size)
          }
        }
      }
    }
  }

  /// Matrices of one width below each other, in float32.
  public static func stacked(_ parts: [Tensor]) -> Tensor {
    guard parts.count != 1, let first = parts.first else {
      return parts.first ?? Tensor([], shape: [0, 0])
    }
    precondition(parts.allSatisfy { $0.columns == first.columns })
    let stack = Tensor(shape: [parts.reduce(0) { $0 + $1.rows }, first.columns]) { target in
      guard var base = target.baseAddress else { return }
      for part in parts {
        base.update(from: part.floats, count: part.count)
        base += part.count
      }
    }
    return stack.recorded(from: parts) { [places = parts.map(\.place)] gradient in
      var first = 0
      for place in places {
        let rows = place.shape.dropLast().reduce(1, *)
        place.receive(gradient.rows(first..<(first + rows)))
        first += rows
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
