import CKernels
import Calibration
import Codecs
import Tensors

/// The rows of one matrix on their way through GPTQ, a tile of `tileRows` at a time.
///
/// Tiles write only what belongs to their rows, and a product's numbers do not depend on where its
/// tile begins, so a solution does not depend on the number of threads.
struct GPTQPass: Sendable {
  /// Rows that read U together; four slabs of the kernel's lanes.
  static let tileRows = 128

  let method: GPTQ
  let solver: GPTQ.Solver
  /// `[outputs, inputs]`.
  let source: Tensor
  let choice: GridChoice
  /// The one grid of a tensor that has one.
  let wholeGrid: AffineGrids?
  private let outputs: Int
  let inputs: Int
  /// Columns that share a grid, and grids in a row.
  let groupSize: Int
  let groups: Int
  /// By place in the solving order: the column, and its group.
  let columns: [Int32]
  let columnGroups: [Int32]
  /// Columns whose inputs were always zero.
  private let dead: [Int]
  private let codes: Storage
  private let scales: Storage
  private let zeros: Storage
  /// Per row: squared error, squared weight, squared output error, squared output; largest error.
  private let sums: Storage

  init(
    method: GPTQ, solver: GPTQ.Solver, source: Tensor, choice: GridChoice, wholeGrid: AffineGrids?
  ) {
    self.method = method
    self.solver = solver
    self.source = source
    self.choice = choice
    self.wholeGrid = wholeGrid
    (outputs, inputs) = (source.shape[0], source.shape[1])
    let size = method.codec.groupSize(inputs: inputs)
    groupSize = size
    groups = method.codec.groupCount(inputs: inputs)
    columns = solver.order.map { Int32($0) }
    columnGroups =
      method.order == .group
      ? (0..<inputs).map { Int32($0 / size) } : solver.order.map { Int32($0 / size) }
    dead = solver.isDead.indices.filter { solver.isDead[$0] }
    codes = Storage(byteCount: outputs * inputs)
    scales = Storage(byteCount: outputs * groups * 4)
    zeros = Storage(byteCount: outputs * groups)
    sums = Storage(byteCount: outputs * 36)
  }

  /// Whether a group's grid is fitted when its first column is to be rounded.
  var fitsWhenReached: Bool {
    wholeGrid == nil && method.grids == .current && method.order != .static
  }

  /// Rounds rows of the matrix.
  func round(_ rows: Range<Int>) -> CompressionError? {
    let part = source.rows(rows).widened()
    let bad = pare_gptq_first_not_finite(part.floats, part.count)
    guard bad == part.count else {
      return .notFinite(row: rows.lowerBound + bad / inputs, column: bad % inputs)
    }
    let tile = GPTQTile(
      pass: self, rows: rows, codes: codes.base.assumingMemoryBound(to: Int8.self),
      scales: scales.base.assumingMemoryBound(to: Float.self),
      zeros: zeros.base.assumingMemoryBound(to: Int8.self))
    do throws(CompressionError) {
      measure(part, rows, losses: try tile.solve(part))
    } catch {
      return error
    }
    return nil
  }

  /// Sums for the report. With d = ŵ - w = -eU and UᵀU = (S + λ)⁻¹ what the outputs lose is
  ///
  ///     dSdᵀ = ‖e‖² - λ‖d‖²,
  ///
  /// which saves a product as large as all of GPTQ's. Where GPTAQ moved the weight first, or where the
  /// difference is too small to trust, it is computed.
  private func measure(_ part: Tensor, _ rows: Range<Int>, losses: [Double]) {
    let doubles = sums.base.assumingMemoryBound(to: Double.self)
    let largest = (sums.base + outputs * 32).assumingMemoryBound(to: Float.self)
    let difference = Storage(byteCount: rows.count * inputs * 4)
    let differences = difference.base.assumingMemoryBound(to: Float.self)
    let byColumn = naturalGroups
    for row in rows {
      let at = doubles + row * 4
      at.initialize(repeating: 0, count: 4)
      largest[row] = 0
      let local = row - rows.lowerBound
      pare_gptq_difference(
        part.floats + local * inputs, codes.base.assumingMemoryBound(to: Int8.self) + row * inputs,
        inputs, scales.base.assumingMemoryBound(to: Float.self) + row * groups,
        zeros.base.assumingMemoryBound(to: Int8.self) + row * groups, byColumn,
        differences + local * inputs, at, at + 1, largest + row)
    }
    let moment = solver.moment.floats
    var lost = 0.0
    for row in rows where solver.shift == nil {
      let local = row - rows.lowerBound
      let line = differences + local * inputs
      for column in dead { line[column] = 0 }
      lost += losses[local]
      doubles[row * 4 + 2] = losses[local] - solver.damping * pare_gptq_dot(line, line, inputs)
    }
    let reached = rows.reduce(0.0) { $0 + doubles[$1 * 4 + 2] }
    if solver.shift != nil || !(reached > 0.02 * lost) {
      for row in rows { doubles[row * 4 + 2] = 0 }
      addForms(of: differences, rows, moment, into: doubles + 2)
    }
    addForms(of: part.floats, rows, moment, into: doubles + 3)
  }

  /// Adds xSxᵀ of each row x to every fourth number of `sums`. S is symmetric, so only blocks of its
  /// columns down to their last row are read; those above the diagonal count twice.
  private func addForms(
    of values: UnsafePointer<Float>, _ rows: Range<Int>, _ moment: UnsafePointer<Float>,
    into sums: UnsafeMutablePointer<Double>
  ) {
    let width = 256
    let product = Storage(byteCount: rows.count * width * 4)
    let products = product.base.assumingMemoryBound(to: Float.self)
    for first in stride(from: 0, to: inputs, by: width) {
      let count = min(width, inputs - first)
      if first > 0 {
        TiledProduct.multiply(
          rows.count, count, first, values, inputs, false, moment + first, inputs, false,
          into: products, width, scale: 2)
      }
      TiledProduct.multiply(
        rows.count, count, count, values + first, inputs, false, moment + first * inputs + first,
        inputs, false, into: products, width, adding: first > 0)
      for row in 0..<rows.count {
        sums[(rows.lowerBound + row) * 4] += pare_gptq_dot(
          products + row * width, values + row * inputs + first, count)
      }
    }
  }

  /// The group of each column as columns lie in the weight.
  private var naturalGroups: [Int32] {
    var groups = [Int32](repeating: 0, count: inputs)
    for (place, column) in columns.enumerated() { groups[Int(column)] = columnGroups[place] }
    return groups
  }

  func solution() -> GPTQ.Solution {
    var error = EncodingError(
      squaredError: 0, squaredWeight: 0, largestError: 0, count: outputs * inputs)
    var outputError = 0.0
    var output = 0.0
    let doubles = sums.base.assumingMemoryBound(to: Double.self)
    let largest = (sums.base + outputs * 32).assumingMemoryBound(to: Float.self)
    for row in 0..<outputs {
      error.squaredError += doubles[row * 4]
      error.squaredWeight += doubles[row * 4 + 1]
      outputError += max(0, doubles[row * 4 + 2])
      output += max(0, doubles[row * 4 + 3])
      error.largestError = max(error.largestError, largest[row])
    }
    let count = outputs * groups
    let grids =
      wholeGrid
      ?? AffineGrids(
        scales: Array(
          UnsafeBufferPointer(
            start: scales.base.assumingMemoryBound(to: Float.self), count: count)),
        zeros: Array(
          UnsafeBufferPointer(start: zeros.base.assumingMemoryBound(to: Int8.self), count: count)),
        perRow: groups)
    return GPTQ.Solution(
      codes: Tensor(dtype: .int8, shape: [outputs, inputs], storage: codes), grids: grids,
      columnGroups: naturalGroups.map { Int($0) }, error: error,
      relativeOutputError: outputError == 0 ? 0 : outputError / output)
  }
}
