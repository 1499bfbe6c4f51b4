import CKernels
import Tensors
import TestSupport
import Testing

private let lanes = Int(PARE_GPTQ_LANES)

/// Every number of columns after the last one that the kernel takes four at a time, several slabs,
/// several groups, rounding in two parts.
@Test(arguments: [2, 3, 4, 8]) func theRoundingKernelEqualsItsReferenceBitForBit(bits: Int) {
  var random = Xoshiro256(seed: UInt64(bits))
  for columns in [1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 64] {
    for slabs in [1, 3] {
      let groups = 2
      let weights = (0..<slabs * columns * lanes).map { _ in Float(random.uniform()) * 4 - 2 }
      let factor = (0..<columns * columns).map { _ in Float(random.uniform()) + 0.2 }
      let scales = (0..<slabs * groups * lanes).map { _ in Float(random.uniform()) * 0.3 + 0.01 }
      let zeros = (0..<slabs * groups * lanes).map { _ in
        Float(Int(random.uniform() * 4) - 2)
      }
      let columnGroups = (0..<columns).map { Int32($0 % 2) }
      typealias Kernel = (UnsafePointer<pare_gptq_block>?, Int, Int) -> Void
      func run(_ kernel: Kernel) -> ([UInt32], [Int8]) {
        var weights = weights
        var codes = [Int8](repeating: 0, count: weights.count)
        weights.withUnsafeMutableBufferPointer { weights in
          codes.withUnsafeMutableBufferPointer { codes in
            factor.withUnsafeBufferPointer { factor in
              scales.withUnsafeBufferPointer { scales in
                zeros.withUnsafeBufferPointer { zeros in
                  columnGroups.withUnsafeBufferPointer { columnGroups in
                    var block = pare_gptq_block(
                      slabs: slabs, columns: columns, weights: weights.baseAddress,
                      factor: factor.baseAddress, factor_stride: columns,
                      scales: scales.baseAddress, zeros: zeros.baseAddress, groups: groups,
                      column_groups: columnGroups.baseAddress, bits: Int32(bits),
                      codes: codes.baseAddress)
                    kernel(&block, 0, columns / 3)
                    kernel(&block, columns / 3, columns)
                  }
                }
              }
            }
          }
        }
        return (weights.map(\.bitPattern), codes)
      }
      let fast = run(pare_gptq_round)
      let plain = run(pare_gptq_round_reference)
      #expect(fast.0 == plain.0 && fast.1 == plain.1, "\(columns) columns, \(slabs) slabs")
    }
  }
}

@Test func lanesHoldRowsAndGiveThemBack() {
  var random = Xoshiro256(seed: 1)
  for rows in [1, 2, 3, 4, 5, 31, 32, 33, 36, 70] {
    for columns in [1, 3, 4, 5, 8, 11] {
      let stride = columns + 2
      let slabs = (rows + lanes - 1) / lanes
      let values = (0..<rows * stride).map { _ in Float(random.uniform()) }
      var gathered = [Float](repeating: -1, count: slabs * columns * lanes)
      pare_gptq_gather(values, stride, rows, columns, &gathered)
      for row in 0..<slabs * lanes {
        for column in 0..<columns {
          let held = gathered[(row / lanes * columns + column) * lanes + row % lanes]
          #expect(held == (row < rows ? values[row * stride + column] : 0))
        }
      }
      var byColumn = [Float](repeating: -1, count: gathered.count)
      pare_gptq_columns(gathered, slabs, columns, &byColumn)
      let first = columns / 2
      var back = [Float](repeating: -1, count: rows * stride)
      pare_gptq_scatter(gathered, rows, columns, first, columns, &back, stride)
      for row in 0..<rows {
        for column in 0..<columns {
          #expect(byColumn[column * slabs * lanes + row] == values[row * stride + column])
          guard column >= first else { continue }
          #expect(back[row * stride + column - first] == values[row * stride + column])
        }
      }
    }
  }
}

@Test func firstNumberThatIsNotFiniteIsFound() {
  for count in [0, 1, 63, 64, 65, 200] {
    var values = [Float](repeating: 1, count: count)
    #expect(pare_gptq_first_not_finite(values, count) == count)
    for at in [0, 62, 63, 64, 130, 199] where at < count {
      values[at] = at % 2 == 0 ? .nan : -.infinity
      #expect(pare_gptq_first_not_finite(values, count) == at)
      values[at] = 1
    }
  }
}

@Test func differencesAndTheirSumsCoverEveryTail() {
  var random = Xoshiro256(seed: 2)
  for columns in [1, 15, 16, 17, 40, 67] {
    for groupSize in [1, 16, 20, 100] {
      let weights = (0..<columns).map { _ in Float(random.uniform()) - 0.5 }
      let codes = (0..<columns).map { _ in Int8(random.uniform() * 16 - 8) }
      let groups = (0..<columns).map { Int32($0 / groupSize) }
      let count = Int(groups.last ?? 0) + 1
      let scales = (0..<count).map { _ in Float(random.uniform()) }
      let zeros = (0..<count).map { _ in Int8(random.uniform() * 8 - 4) }
      var difference = [Float](repeating: 0, count: columns)
      var (squared, size, largest) = (1.0, 2.0, Float(0))
      pare_gptq_difference(
        weights, codes, columns, scales, zeros, groups, &difference, &squared, &size, &largest)
      var (expected, expectedSize, expectedLargest) = (1.0, 2.0, Float(0))
      for column in 0..<columns {
        let group = Int(groups[column])
        let d = (Float(codes[column]) - Float(zeros[group])) * scales[group] - weights[column]
        #expect(difference[column] == d)
        expected += Double(d) * Double(d)
        expectedSize += Double(weights[column]) * Double(weights[column])
        expectedLargest = max(expectedLargest, abs(d))
      }
      #expect(abs(squared - expected) < 1e-12 * expected && largest == expectedLargest)
      #expect(abs(size - expectedSize) < 1e-12 * expectedSize)
      let dot = pare_gptq_dot(weights, difference, columns)
      let plain = zip(weights, difference).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
      #expect(abs(dot - plain) < 1e-12 * (1 + abs(plain)))
    }
  }
}
