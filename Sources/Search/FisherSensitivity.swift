package import Calibration
package import Models
package import Tensors
import Training

/// What replacing one matrix costs by the curvature of the loss: for a change δ of its weights
///
///     ½ Σ_j F_jj δ_j²,      F_jj = mean over samples of (∂ loss / ∂ w_j)²
///
/// the diagonal of the empirical Fisher information (LeCun et al. 1989; Kim et al. 2023, SqueezeLLM,
/// arXiv:2306.07629, section 3). One backward pass for each sample serves all matrices and bits; the
/// whole model is in memory in float32 three times.
package struct FisherSensitivity {
  /// `[outputs, inputs]` by the matrix's declared name, as its weight lies.
  private let fisher: [String: Tensor]

  /// Bytes of the weights, their gradients, and the sums.
  package static func byteCount(_ model: LanguageModel) -> Int {
    12
      * model.blocks.reduce(0) { sum, block in
        sum + block.linears.reduce(0) { $0 + $1.weight.parameterCount }
      }
  }

  /// - Parameter samples: used, from the first on.
  package init(_ model: LanguageModel, _ set: CalibrationSet, samples: Int = 32) throws {
    let (recording, parameters) = model.withParameters { $0.isMatrix && $0.role.isBlockLinear }
    var sums: [String: Storage] = [:]
    for parameter in parameters {
      let storage = Storage(byteCount: parameter.count * 4)
      storage.base.assumingMemoryBound(to: Float.self)
        .initialize(repeating: 0, count: parameter.count)
      sums[parameter.name] = storage
    }
    let used = set.samples.prefix(samples).filter { $0.tokens.count > 1 }
    for sample in used {
      let next = Array(sample.tokens.dropFirst()) + [0]
      let ends = Set(sample.segments.map { $0.upperBound - 1 })
      let weights = sample.tokens.indices.map { Float(ends.contains($0) ? 0 : 1) }
      var objective = LanguageModeling()
      _ = try objective.accumulate(
        recording,
        TrainingBatch(
          rows: 1, length: sample.tokens.count, inputs: sample.tokens, targets: next,
          weights: weights, segments: sample.segments),
        ObjectiveContext(scale: 1 / Double(max(1, weights.count { $0 != 0 })), recomputes: true))
      for parameter in parameters {
        guard let gradient = parameter.gradient, let sum = sums[parameter.name] else { continue }
        let target = Unshared(sum.base.assumingMemoryBound(to: Float.self))
        let source = Unshared(gradient.floats)
        let scale = 1 / Float(used.count)
        Parallel.ranges(parameter.count, of: 1 << 16) { range in
          for index in range {
            target.value[index] += source.value[index] * source.value[index] * scale
          }
        }
        parameter.clearGradient()
      }
    }
    fisher = Dictionary(
      uniqueKeysWithValues: parameters.compactMap { parameter in
        sums[parameter.name].map {
          (parameter.name, Tensor(dtype: .float32, shape: parameter.shape, storage: $0))
        }
      })
  }

  /// - Parameters:
  ///   - name: declared, of a matrix inside a block.
  ///   - original, changed: `[outputs, inputs]`.
  /// - Returns: nil for a matrix that was not measured.
  package func cost(_ name: String, of changed: any Weight, for original: any Weight) -> Double? {
    guard var f = fisher[name] else { return nil }
    if original is TransposedWeight { f = f.transposed() }
    let (a, b) = (original.dequantized(), changed.dequantized())
    let columns = a.columns
    let rows = Unshared((a.floats, b.floats, f.floats))
    let sums = withExtendedLifetime((a, b, f)) {
      Parallel.map(a.rows) { row in
        var sum = 0.0
        for index in row * columns..<(row + 1) * columns {
          let delta = Double(rows.value.0[index] - rows.value.1[index])
          sum += Double(rows.value.2[index]) * delta * delta
        }
        return sum
      }
    }
    return sums.reduce(0, +) / 2
  }
}
