import Calibration
import Models
import Tensors

/// Where the learning of equivalent transformations starts: SmoothQuant's factors (Xiao et al. 2022,
/// arXiv:2211.10438, equation 4) and the middles of the channels' ranges (Outlier Suppression+, Wei et
/// al. 2023, arXiv:2304.09145).
struct SmoothingStart {
  /// For each transformation.
  var starts: [(scale: [Float], shift: [Float])] = []

  init(_ problem: BlockProblem, _ folds: [EquivalentTransformation], migration: Float) throws {
    var lows = folds.map { [Float](repeating: .infinity, count: $0.channelCount) }
    var highs = folds.map { [Float](repeating: -.infinity, count: $0.channelCount) }
    for batch in 0..<problem.batches {
      let context = problem.context(batch)
      var state = problem.block.begin(try problem.input(batch))
      for stage in Block.Stage.allCases {
        for (index, fold) in folds.enumerated() where fold.stage == stage {
          let x = state.input
          for row in 0..<x.rows {
            let line = x.floats + row * x.columns
            for (column, channel) in fold.channels.enumerated() {
              lows[index][channel] = min(lows[index][channel], line[column])
              highs[index][channel] = max(highs[index][channel], line[column])
            }
          }
        }
        problem.block.run(stage, &state, context)
      }
    }
    let linears = problem.block.linears
    for (index, fold) in folds.enumerated() {
      let count = fold.channelCount
      let shifts = (0..<count).map { channel in
        fold.allowsShift ? (lows[index][channel] + highs[index][channel]) / 2 : 0
      }
      var weights = [Float](repeating: 0, count: count)
      for consumer in fold.consumers {
        let matrix = linears[consumer].weight.dequantized()
        for row in 0..<matrix.rows {
          for (column, channel) in fold.channels.enumerated() {
            weights[channel] = max(
              weights[channel], abs(matrix.floats[row * matrix.columns + column]))
          }
        }
      }
      let scales = (0..<count).map { channel in
        let largest = max(
          abs(lows[index][channel] - shifts[channel]), abs(highs[index][channel] - shifts[channel]))
        return Self.factor(largest, weights[channel], migration)
      }
      starts.append((scales, shifts))
    }
  }

  /// max|x|^α / max|w|^(1-α), 1 for a channel that is always zero.
  private static func factor(_ x: Float, _ w: Float, _ migration: Float) -> Float {
    guard x > 0, w > 0, x.isFinite else { return 1 }
    return min(max(power(x, migration) / power(w, 1 - migration), 0.01), 100)
  }
}
