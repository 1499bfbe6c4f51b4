import CKernels
public import Tensors

/// A frozen matrix `W`, in whatever form it is kept, with a trained update of low rank beside it:
///
///     LoRA    y = x · (W + s · B · A)ᵀ
///     DoRA    y = (m / ‖V‖) ⊙ (x · Vᵀ)        V = W + s · B · A
///
/// where DoRA's `m` has an entry for each row of the matrix and `‖V‖` is the Euclidean length of each
/// row, which counts as a constant on the way back (Liu et al. 2024, section 4.3). The update is never
/// multiplied out: the row lengths follow from `W · Aᵀ`, `A · Aᵀ` and the constant lengths of `W`.
public struct AdaptedWeight: Weight {
  /// Frozen: holds no gradient.
  public let base: any Weight
  /// `A` `[rank, inputs]`.
  public let down: Tensor
  /// `B` `[outputs, rank]`.
  public let up: Tensor
  /// `m` `[outputs]` of DoRA; nil for LoRA.
  public let magnitude: Tensor?
  /// `s`.
  public let scale: Float
  /// ‖W‖² of each row, for DoRA.
  private let squaredLengths: [Double]
  private let dropout: AdapterDropout?
  /// Number of this matrix among the adapted ones.
  private let index: Int

  /// - Parameters:
  ///   - down: `[rank, inputs]`, float32.
  ///   - up: `[outputs, rank]`, float32.
  ///   - magnitude: `[outputs]`, float32.
  public init(
    base: any Weight, down: Tensor, up: Tensor, magnitude: Tensor? = nil, scale: Float,
    dropout: AdapterDropout? = nil, index: Int = 0
  ) {
    self.init(
      base: base.detached, down: down, up: up, magnitude: magnitude, scale: scale,
      squaredLengths: magnitude == nil ? [] : Self.squaredLengths(of: base), dropout: dropout,
      index: index)
  }

  private init(
    base: any Weight, down: Tensor, up: Tensor, magnitude: Tensor?, scale: Float,
    squaredLengths: [Double], dropout: AdapterDropout?, index: Int
  ) {
    precondition(down.shape == [up.columns, base.inputs] && up.rows == base.outputs)
    precondition(magnitude.map { $0.count == base.outputs } ?? true)
    self.base = base
    self.down = down
    self.up = up
    self.magnitude = magnitude
    self.scale = scale
    self.squaredLengths = squaredLengths
    self.dropout = dropout
    self.index = index
  }

  public var rank: Int { down.rows }
  public var outputs: Int { base.outputs }
  public var inputs: Int { base.inputs }
  public var storedBytes: Int {
    base.storedBytes + down.byteCount + up.byteCount + (magnitude?.byteCount ?? 0)
  }

  public func multiply(_ x: Tensor) -> Tensor {
    let read = dropout.map { $0(x, matrix: index) } ?? x
    let low = Tensor.matmul(read, transposing: down).scaled(by: scale)
    let sum = base.multiply(x) + Tensor.matmul(low, transposing: up)
    guard let magnitude else { return sum }
    return sum.multiplied(columnsBy: magnitude.multiplied(elementwise: inverseLengths))
  }

  public func inputGradient(_ dy: Tensor) -> Tensor {
    var dy = dy.detached
    if let magnitude {
      dy = dy.multiplied(columnsBy: magnitude.detached.multiplied(elementwise: inverseLengths))
    }
    let low = Tensor.matmul(dy, up.detached).scaled(by: scale)
    return base.inputGradient(dy) + Tensor.matmul(low, down.detached)
  }

  /// 1 / ‖V‖ of each row, 0 for a row of zeros, without a place in a computation:
  /// ‖w + s Σ b·a‖² = ‖w‖² + 2 s b · (A w) + s² b · (A Aᵀ) b.
  private var inverseLengths: Tensor {
    let (a, b) = (down.detached, up.detached)
    let products = base.multiply(a)  // A Wᵀ [rank, outputs]
    let gram = Tensor.matmul(a, transposing: a)  // A Aᵀ [rank, rank]
    let (rank, outputs, scale) = (rank, outputs, Double(scale))
    return Tensor(shape: [outputs]) { target in
      for output in 0..<outputs {
        let row = b.floats + output * rank
        var (crossed, squared) = (0.0, 0.0)
        for i in 0..<rank {
          let factor = Double(row[i])
          crossed += factor * Double(products.floats[i * outputs + output])
          squared += factor * Double(pare_dot_f32(gram.floats + i * rank, row, rank))
        }
        let length = squaredLengths[output] + 2 * scale * crossed + scale * scale * squared
        target[output] = length > 0 ? Float(1 / length.squareRoot()) : 0
      }
    }
  }

  /// ‖w‖² of every row, some rows expanded at a time.
  static func squaredLengths(of weight: any Weight) -> [Double] {
    let (inputs, outputs) = (weight.inputs, weight.outputs)
    let rowsPerPiece = max(1, (1 << 20) / max(inputs, 1))
    let pieces = Parallel.map((outputs + rowsPerPiece - 1) / rowsPerPiece) { piece in
      let rows = (piece * rowsPerPiece)..<min((piece + 1) * rowsPerPiece, outputs)
      let values = Tensor(shape: [rows.count, inputs]) { target in
        if let base = target.baseAddress { weight.dequantizeRows(rows, into: base) }
      }
      return (0..<rows.count).map { row in
        let start = values.floats + row * inputs
        return pare_dot_ref(start, start, inputs)
      }
    }
    return pieces.flatMap { $0 }
  }

  /// Rows of the matrix that multiplies as base and update together do: `V`, or `(m / ‖V‖) ⊙ V`.
  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    base.dequantizeRows(range, into: target)
    for row in range {
      let values = target + (row - range.lowerBound) * inputs
      for i in 0..<rank {
        pare_accumulate(
          scale * up.floats[row * rank + i], down.floats + i * inputs, values, inputs)
      }
      guard let magnitude else { continue }
      let squared = pare_dot_ref(values, values, inputs)
      let factor = squared > 0 ? Double(magnitude.floats[row]) / squared.squareRoot() : 0
      pare_scale(values, Float(factor), values, inputs)
    }
  }

  /// One dense matrix in place of base and update, float32 `[outputs, inputs]`.
  public func merged() -> Tensor {
    guard base is TransposedWeight else { return expanded(of: self) }
    // Its rows lie far apart: all of them at once.
    return dequantized()
  }

  public var detached: any Weight {
    AdaptedWeight(
      base: base, down: down.detached, up: up.detached, magnitude: magnitude?.detached,
      scale: scale, squaredLengths: squaredLengths, dropout: nil, index: index)
  }

  public func giveBack() { base.giveBack() }
}

/// The whole matrix, rows expanded on all threads.
func expanded(of weight: any Weight) -> Tensor {
  let (inputs, outputs) = (weight.inputs, weight.outputs)
  return Tensor(shape: [outputs, inputs]) { target in
    guard let base = target.baseAddress else { return }
    let target = Unshared(base)
    Parallel.ranges(outputs, of: max(1, (1 << 18) / max(inputs, 1))) { rows in
      weight.dequantizeRows(rows, into: target.value + rows.lowerBound * inputs)
    }
  }
}

extension Tensor {
  /// Multiplies every row elementwise by a vector `[columns]`.
  func multiplied(columnsBy factors: Tensor) -> Tensor {
    precondition(factors.count == columns, "\(shape) · \(factors.shape)")
    let product = withRows(multipliedBy: factors)
    return product.recorded(from: self, factors) { [x = self] gradient in
      x.place.receive(gradient.withRows(multipliedBy: factors))
      // The sum over rows as a product with a row of ones, whose order is fixed by the shape.
      guard factors.place.isWanted else { return }
      let products = gradient.multiplied(elementwise: x.detached).reshaped([x.rows, x.columns])
      let ones = Tensor([Float](repeating: 1, count: x.rows), shape: [1, x.rows])
      factors.place.receive(.matmul(ones, products))
    }
  }

  private func withRows(multipliedBy factors: Tensor) -> Tensor {
    let (source, factor, columns) = (Unshared(floats), Unshared(factors.floats), columns)
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(rows, of: max(1, (1 << 15) / max(columns, 1))) { range in
        for row in range {
          pare_multiply(
            source.value + row * columns, factor.value, target.value + row * columns, columns)
        }
      }
    }
  }
}
