import Codecs
package import Tensors

/// What a compressed matrix does to its outputs on the calibration tokens.
package enum OutputError {
  /// `‖X(W - Ŵ)ᵀ‖² / ‖XWᵀ‖² = tr(ΔHΔᵀ) / tr(WHWᵀ)`.
  ///
  /// - Parameters:
  ///   - weight: `[outputs, inputs]`.
  ///   - h: the inputs' second moment, `[inputs, inputs]`.
  package static func relative(_ weight: Tensor, _ compressed: any Weight, _ h: Tensor) -> Double {
    let w = weight.widened()
    let inputs = w.columns
    let rows = max(1, (1 << 22) / max(inputs, 1))
    var (lost, whole) = (0.0, 0.0)
    for first in stride(from: 0, to: w.rows, by: rows) {
      let range = first..<min(first + rows, w.rows)
      let part = w.rows(range)
      let decoded = Tensor(shape: [range.count, inputs]) { target in
        if let base = target.baseAddress { compressed.dequantizeRows(range, into: base) }
      }
      lost += quadraticForm(part - decoded, h)
      whole += quadraticForm(part, h)
    }
    return whole > 0 ? max(0, lost / whole) : 0
  }

  /// `tr(A H Aᵀ)`.
  private static func quadraticForm(_ a: Tensor, _ h: Tensor) -> Double {
    let product = Tensor.product(a.rows, a.columns, a.columns, a.operand(), h.operand())
    let (x, y, columns) = (Unshared(a.floats), Unshared(product.floats), a.columns)
    return withExtendedLifetime((a, product)) {
      Parallel.map(a.rows) { row in
        var sum = 0.0
        for index in row * columns..<(row + 1) * columns {
          sum += Double(x.value[index]) * Double(y.value[index])
        }
        return sum
      }.reduce(0, +)
    }
  }
}
