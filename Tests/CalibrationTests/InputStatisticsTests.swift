import Calibration
import Tensors
import Testing

@Test func statisticsAreThoseOfAllBatchesTogether() throws {
  var random = Xoshiro256(seed: 3)
  let (n, rows) = (21, [4, 1, 9])
  func batch(_ count: Int) -> Tensor {
    Tensor((0..<count * n).map { _ in Float(random.uniform()) - 0.4 }, shape: [count, n])
  }
  let inputs = rows.map(batch)
  let originals = rows.map(batch)
  let sum = InputStatisticsSum(inputs: n, needs: [.secondMoment, .crossMoment])
  for (x, original) in zip(inputs, originals) { sum.add(x, original: original) }
  let statistics = sum.finish()
  #expect(statistics.tokens == 14)
  let x = Tensor.stacked(inputs)
  let other = Tensor.stacked(originals)
  for i in 0..<n {
    let column = (0..<14).map { Double(x.floats[$0 * n + i]) }
    #expect(abs(Double(statistics.meanSquare[i]) - column.reduce(0) { $0 + $1 * $1 } / 14) < 1e-6)
    #expect(
      abs(Double(statistics.meanMagnitude[i]) - column.reduce(0) { $0 + abs($1) } / 14) < 1e-6)
    #expect(Double(statistics.largestMagnitude[i]) == column.map(abs).max())
    for j in 0..<n {
      var (second, cross) = (0.0, 0.0)
      for t in 0..<14 {
        let xj = Double(x.floats[t * n + j])
        second += Double(x.floats[t * n + i]) * xj / 14
        cross += (Double(other.floats[t * n + i]) - Double(x.floats[t * n + i])) * xj / 14
      }
      #expect(abs(Double(try #require(statistics.secondMoment).floats[i * n + j]) - second) < 1e-6)
      #expect(abs(Double(try #require(statistics.crossMoment).floats[i * n + j]) - cross) < 1e-6)
    }
  }
}
