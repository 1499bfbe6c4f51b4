import CKernels
package import Codecs
package import Tensors

/// A matrix in integer codes whose codes stay while its scales are trained: what distillation can win
/// back of a rounding without changing the file's size (dynamic and distilled weight quantization in
/// MLX LM; the scales of LSQ, Esser et al. 2020, arXiv:1902.08153, with frozen integers).
///
///     W = scale ⊙ (code − zero)        dL/dscale of a group = Σ over the group of dL/dW · (code − zero)
package struct TrainedScalesWeight: Weight {
  package let base: GroupQuantizedWeight
  /// float32, in the shape the codec stores; carries the place where gradients arrive.
  package let scales: Tensor
  /// The same codes with scales that are read from `scales`' memory.
  private let current: GroupQuantizedWeight
  /// The same codes with every scale 1: `code − zero`.
  private let units: GroupQuantizedWeight

  /// - Parameter scales: float32, as many as the base has.
  package init(_ base: GroupQuantizedWeight, scales: Tensor) {
    precondition(scales.dtype == .float32 && scales.count == base.scales.count)
    self.base = base
    self.scales = scales
    current = base.withScales(scales.detached)
    units = base.withScales(
      Tensor(shape: base.scales.shape) { $0.initialize(repeating: 1) })
  }

  package var outputs: Int { base.outputs }
  package var inputs: Int { base.inputs }
  package var storedBytes: Int { base.storedBytes }

  package func multiply(_ x: Tensor) -> Tensor {
    let y = current.multiply(x.detached)
    return y.recorded(from: x, scales) { [x, place = scales.place] dy in
      x.place.receive(current.inputGradient(dy))
      if place.isWanted { accumulate(x.detached, dy, into: place) }
    }
  }

  package func inputGradient(_ dy: Tensor) -> Tensor { current.inputGradient(dy) }

  package func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    current.dequantizeRows(range, into: target)
  }

  package func giveBack() { base.giveBack() }

  package var detached: any Weight { TrainedScalesWeight(base, scales: scales.detached) }

  /// The matrix with the scales as they are now, rounded to the type they are stored in.
  package var settled: GroupQuantizedWeight {
    base.withScales(scales.detached.converted(to: base.codec.scaleType))
  }

  /// Some rows of dL/dW = dyᵀ · x at a time, so that the whole never exists.
  private func accumulate(_ x: Tensor, _ dy: Tensor, into place: GradientPlace) {
    let (tokens, inputs, outputs) = (x.rows, inputs, outputs)
    let group = base.codec.groupSize(inputs: inputs)
    let perRow = base.codec.granularity == .tensor ? 0 : base.codec.groupCount(inputs: inputs)
    let size = max(1, (1 << 20) / max(inputs, 1))
    place.accumulate { target in
      let target = Unshared(target)
      for first in stride(from: 0, to: outputs, by: size) {
        let rows = min(size, outputs - first)
        let gradient = Tensor.product(
          rows, inputs, tokens,
          MatrixOperand(dy, offset: first, stride: outputs, transposed: true), x.operand())
        let sums = Parallel.map(rows) { row in
          withUnsafeTemporaryAllocation(of: Float.self, capacity: inputs) { scratch -> [Float] in
            guard let codes = scratch.baseAddress else { return [] }
            units.dequantizeRows((first + row)..<(first + row + 1), into: codes)
            return stride(from: 0, to: inputs, by: group).map { start in
              pare_dot_f32(
                codes + start, gradient.floats + row * inputs + start,
                min(group, inputs - start))
            }
          }
        }
        for (row, groups) in sums.enumerated() {
          for (index, sum) in groups.enumerated() {
            target.value[perRow == 0 ? 0 : (first + row) * perRow + index] += sum
          }
        }
      }
    }
  }
}

extension GroupQuantizedWeight {
  /// The same codes on grids of other steps, stored in the type of `scales`.
  fileprivate func withScales(_ scales: Tensor) -> GroupQuantizedWeight {
    var codec = codec
    codec.scaleType = scales.dtype
    return GroupQuantizedWeight(
      codec: codec, outputs: outputs, inputs: inputs, codes: codes,
      scales: scales.reshaped(self.scales.shape), zeroPoints: zeroPoints, hasGaps: hasGaps,
      columnGroups: columnGroups)
  }
}
