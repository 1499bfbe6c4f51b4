import CKernels
public import Calibration
public import Codecs
public import Tensors

/// AWQ's clipping (Lin et al. 2023, arXiv:2306.00978, section 4.1 of its appendix and the authors'
/// `auto_clip`): per group of a row the range shrinks to where the group's part of the output comes
/// closest, then weights are rounded to nearest.
///
///     argmin over shrinks of  Σ_tokens (Σ_j (ŵ_j - w_j) x_j)²  =  δᵀ H_gg δ,   δ = ŵ - w
///
/// With H the second moment of the inputs, whose diagonal blocks say all that the tokens do.
public struct ActivationAwareClipping: WeightMethod, Hashable {
  public var codec: AffineGroups
  /// Ranges multiplied by `1 - i / grid` for `i` up to `maximumShrink * grid`.
  public var grid = 20
  public var maximumShrink = 0.5

  public init(codec: AffineGroups) { self.codec = codec }

  public var needs: StatisticsNeeds { [.secondMoment] }

  public func compress(_ weight: Tensor, _ statistics: InputStatistics) throws(CompressionError)
    -> CompressedWeight
  {
    guard (1...10_000).contains(grid), maximumShrink >= 0, maximumShrink < 1 else {
      throw .unsupportedSetting(
        "a clipping search with grid \(grid) and maximum shrink \(maximumShrink) is not possible; "
          + "choose a grid of 1 to 10000 and a shrink from 0 up to, not including, 1.")
    }
    guard let h = statistics.secondMoment else {
      preconditionFailure("clipping looks at the inputs' second moment")
    }
    defer { weight.giveBack() }
    do throws(CodecError) {
      guard codec.granularity != .tensor else {
        let (compressed, error) = try codec.encode(weight, choosing: .range)
        return CompressedWeight(weight: compressed, error: error)
      }
      let grids = chosenGrids(weight.widened(), h)
      let (compressed, error) = try codec.encode(weight, choosing: .given(grids))
      return CompressedWeight(
        weight: compressed, error: error,
        relativeOutputError: OutputError.relative(weight, compressed, h))
    } catch {
      throw CompressionError(error)
    }
  }

  private func chosenGrids(_ weight: Tensor, _ h: Tensor) -> AffineGrids {
    let (outputs, inputs) = (weight.rows, weight.columns)
    let group = codec.groupSize(inputs: inputs)
    let groups = codec.groupCount(inputs: inputs)
    var scales = [Float](repeating: 0, count: outputs * groups)
    var zeros = [Int8](repeating: 0, count: outputs * groups)
    let candidates = Int(maximumShrink * Double(grid)) + 1
    for number in 0..<groups {
      let columns = number * group..<min((number + 1) * group, inputs)
      var least = [Double](repeating: .infinity, count: outputs)
      for candidate in 0..<candidates {
        let shrink = 1 - Float(candidate) / Float(grid)
        let (delta, found) = differences(weight, columns, shrink)
        let product = Tensor.product(
          outputs, columns.count, columns.count, delta.operand(),
          MatrixOperand(
            h, offset: columns.lowerBound * inputs + columns.lowerBound, stride: inputs))
        for row in 0..<outputs {
          var error = 0.0
          for index in row * columns.count..<(row + 1) * columns.count {
            error += Double(delta.floats[index]) * Double(product.floats[index])
          }
          guard error < least[row], found[row].scale.isFinite else { continue }
          least[row] = error
          scales[row * groups + number] = found[row].scale
          zeros[row * groups + number] = found[row].zero
        }
      }
    }
    return AffineGrids(scales: scales, zeros: zeros, perRow: groups)
  }

  /// `ŵ - w` of a group of columns whose ranges are shrunken, `[outputs, columns]`, and the grids.
  private func differences(_ weight: Tensor, _ columns: Range<Int>, _ shrink: Float)
    -> (Tensor, [(scale: Float, zero: Int8)])
  {
    let (outputs, inputs, width) = (weight.rows, weight.columns, columns.count)
    let codec = codec
    let source = Unshared(weight.floats)
    let (low, high) = (Float(codec.lowestCode), Float(codec.highestCode))
    let delta = Storage(byteCount: outputs * width * 4)
    let target = Unshared(delta.base.assumingMemoryBound(to: Float.self))
    let found = Parallel.map(outputs) { row -> (scale: Float, zero: Int8) in
      let values = source.value + row * inputs + columns.lowerBound
      let result = target.value + row * width
      var (least, most): (Float, Float) = (0, 0)
      for column in 0..<width {
        least = min(least, values[column])
        most = max(most, values[column])
      }
      var zero: Int8 = 0
      let scale = codec.grid(from: least * shrink, to: most * shrink, zero: &zero)
      let offset = Float(zero)
      for column in 0..<width {
        let code = min(max(values[column] / scale + offset, low), high)
          .rounded(.toNearestOrEven)
        result[column] = (code - offset) * scale - values[column]
      }
      return (scale, zero)
    }
    return (Tensor(dtype: .float32, shape: [outputs, width], storage: delta), found)
  }
}
