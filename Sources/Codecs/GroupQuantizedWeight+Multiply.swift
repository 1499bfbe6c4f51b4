import CKernels
import Tensors

extension GroupQuantizedWeight {
  /// The product with tiles of rows decoded one at a time.
  func tiledMultiply(_ x: Tensor) -> Tensor {
    let tokens = x.rows
    return Tensor(shape: [tokens, outputs]) { target in
      guard let base = target.baseAddress else { return }
      for start in stride(from: 0, to: outputs, by: 64) {
        let rows = start..<min(start + 64, outputs)
        let tile = Tensor(shape: [rows.count, inputs]) { values in
          guard let base = values.baseAddress else { return }
          dequantizeRows(rows, into: base)
        }
        let product = x.multiplied(byTransposeOf: tile)
        for token in 0..<tokens {
          (base + token * outputs + start).update(
            from: product.floats + token * rows.count, count: rows.count)
        }
      }
    }
  }
}
