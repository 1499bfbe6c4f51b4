import CKernels
package import Calibration
package import Codecs
package import Tensors

extension GPTQ {
  /// Codes of a whole matrix, before they take their stored form.
  package struct Solution {
    /// int8 `[outputs, inputs]`, columns as they lie in the weight.
    package let codes: Tensor
    package let grids: AffineGrids
    /// `[inputs]`: which of a row's grids a column is on.
    package let columnGroups: [Int]
    package let error: EncodingError
    package let relativeOutputError: Double
  }

  /// Rounds all rows, a tile of them at a time for each thread.
  package func solve(_ weight: Tensor, _ solver: Solver) throws(CompressionError) -> Solution {
    guard weight.shape.count == 2, weight.dtype.isFloatingPoint else {
      throw .codec(.unsupportedShape(shape: weight.shape, dtype: weight.dtype))
    }
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    precondition(inputs == solver.order.count, "statistics of other inputs")
    if case .group(let size) = codec.granularity, !codec.allowsShortLastGroup, inputs % size != 0 {
      throw .codec(.groupDoesNotDivide(inputs: inputs, groupSize: size))
    }
    defer { weight.giveBack() }
    let choice = try clipping.gridChoice()
    let pass = GPTQPass(
      method: self, solver: solver, source: weight, choice: choice,
      wholeGrid: codec.granularity == .tensor
        ? try wholeGrid(of: weight, solver, choosing: choice) : nil)
    let tiles = (outputs + GPTQPass.tileRows - 1) / GPTQPass.tileRows
    let faults = Parallel.map(tiles) { tile in
      let first = tile * GPTQPass.tileRows
      return pass.round(first..<min(first + GPTQPass.tileRows, outputs))
    }
    if let fault = faults.lazy.compactMap({ $0 }).first { throw fault }
    return pass.solution()
  }

  /// The one grid of a tensor, from the weights before any is rounded.
  private func wholeGrid(of weight: Tensor, _ solver: Solver, choosing choice: GridChoice)
    throws(CompressionError) -> AffineGrids
  {
    var start = weight
    if solver.isDead.contains(true) || solver.shift != nil {
      start = Tensor(shape: weight.shape) { target in
        guard let base = target.baseAddress else { return }
        for first in stride(from: 0, to: weight.shape[0], by: GPTQPass.tileRows) {
          let rows = first..<min(first + GPTQPass.tileRows, weight.shape[0])
          let part = weight.rows(rows).widened()
          solver.start(of: part.floats, rows.count, into: base + first * weight.shape[1])
        }
      }
    }
    do {
      return try codec.grid(ofWhole: start, choosing: choice)
    } catch {
      throw CompressionError(error)
    }
  }
}

extension GPTQ.Solver {
  /// The weights that are to be rounded: zero where the inputs are dead, shifted by GPTAQ.
  func start(
    of weights: UnsafePointer<Float>, _ rows: Int, into target: UnsafeMutablePointer<Float>
  ) {
    let inputs = order.count
    target.update(from: weights, count: rows * inputs)
    if let shift {
      TiledProduct.multiply(
        rows, inputs, inputs, weights, inputs, false, shift.floats, inputs, false, into: target,
        inputs, adding: true)
    }
    for column in 0..<inputs where isDead[column] {
      for row in 0..<rows { target[row * inputs + column] = 0 }
    }
  }
}
