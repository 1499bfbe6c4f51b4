import CKernels
public import Calibration
public import Codecs
public import Tensors

/// Half-quadratic quantization: the grid that errs least in a norm which forgives a few large errors,
/// found from the weights alone (Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine
/// Learning Models", mobiusml.github.io/hqq_blog).
///
/// With `W_q` the codes and `W_r = (W_q - z) s` what they decode to, each group minimizes
/// `Σ |W - W_r|^p`, p below 1, by turns of
///
///     W_e  = shrink(W - W_r, β),   shrink(x, β) = sign(x) max(0, |x| - |x|^(p-1) / β)
///     s, z = argmin ‖(W - W_e) - (W_q - z) s‖²
///     β    = κ β
///
/// until the objective no longer falls. Two things differ from the paper, because zero points of our
/// formats are integers. The paper moves z alone, by fractions of a step that rounding would undo
/// (measured: every zero point came back to where it began); here the fit moves s too, and both are
/// rounded as they are stored in every turn, so the objective is that of the file. And since this
/// has many local minima, it runs from several shrunken ranges and the best is kept.
///
/// β counts in steps of the covering grid. (In the weights' own units, as the authors' code has it,
/// β = 10 leaves `W_e` at 0 unless weights err by more than 0.17.)
///
/// A grid is taken only if it errs no more than the covering one also in squares, so against
/// round-to-nearest both objectives improve or stay. On weights of Student's t with 3 degrees of freedom
/// in groups of 64 (float32 scales), `Σ |e|^0.7` falls to 0.96, 0.87 and 0.76 of min-max at 4, 3 and 2
/// bits, squared error to 0.97, 0.95 and 0.83. For squared error alone,
/// `RoundToNearest.Clipping.meanSquareError` finds better grids (0.94, 0.85, 0.71).
///
/// A weight takes 80 to 140 ns of one core, more at fewer bits.
public struct HQQ: WeightMethod, Hashable {
  public var codec: AffineGroups
  /// p.
  public var norm: Float
  /// β of the first turn, in steps of the covering grid.
  public var beta: Float
  /// κ.
  public var kappa: Float
  /// Turns at most from each start.
  public var iterations: Int
  /// Ranges that the search starts from, each a tenth of the covering one shorter than the last. One
  /// costs a sixth of the time of six; at 4 bits it gains half as much.
  public var starts: Int

  /// - Parameter codec: with a scale per group or per channel; symmetric grids fit the scale alone.
  public init(
    codec: AffineGroups, norm: Float = 0.7, beta: Float = 10, kappa: Float = 1.01,
    iterations: Int = 20, starts: Int = 6
  ) {
    self.codec = codec
    self.norm = norm
    self.beta = beta
    self.kappa = kappa
    self.iterations = iterations
    self.starts = starts
  }

  /// - Parameter weight: `[outputs, inputs]`; its file pages are given back afterwards.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    try checkSettings()
    guard weight.shape.count == 2, weight.dtype.isFloatingPoint else {
      throw .codec(.unsupportedShape(shape: weight.shape, dtype: weight.dtype))
    }
    defer { weight.giveBack() }
    do {
      let grids = fittedGrids(weight)
      // A scale that overflows, or weights that are not finite, are named by the plain encoder.
      guard grids.scales.allSatisfy(\.isFinite) else {
        let (plain, error) = try codec.encode(weight, choosing: .range)
        return CompressedWeight(weight: plain, error: error)
      }
      let (compressed, error) = try codec.encode(weight, choosing: .given(grids))
      return CompressedWeight(weight: compressed, error: error)
    } catch {
      throw CompressionError(error)
    }
  }

  private func checkSettings() throws(CompressionError) {
    guard codec.granularity != .tensor else {
      throw .unsupportedSetting(
        "HQQ fits grids of groups or channels; choose a group size or one scale per channel.")
    }
    guard norm > 0, norm <= 1 else {
      throw .unsupportedSetting("HQQ's norm \(norm) is not above 0 and at most 1; choose 0.7.")
    }
    guard beta > 0, beta.isFinite, kappa > 0, kappa.isFinite else {
      throw .unsupportedSetting("HQQ needs beta and kappa above 0; choose 10 and 1.01.")
    }
    guard (0...1000).contains(iterations), (1...9).contains(starts) else {
      throw .unsupportedSetting(
        "HQQ needs 0 to 1000 iterations and 1 to 9 starts; choose 20 and 6.")
    }
  }

  /// Groups are fitted one by one, so how rows are dealt to threads changes nothing.
  private func fittedGrids(_ weight: Tensor) -> AffineGrids {
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let (group, groups) = (codec.groupSize(inputs: inputs), codec.groupCount(inputs: inputs))
    let tileRows = max(1, 65_536 / max(inputs, 1))
    var scales = [Float](repeating: 1, count: outputs * groups)
    var zeros = [Int8](repeating: 0, count: outputs * groups)
    guard inputs > 0 else { return AffineGrids(scales: scales, zeros: zeros, perRow: groups) }
    scales.withUnsafeMutableBufferPointer { scales in
      zeros.withUnsafeMutableBufferPointer { zeros in
        guard let firstScale = scales.baseAddress, let firstZero = zeros.baseAddress else { return }
        let (scales, zeros) = (Unshared(firstScale), Unshared(firstZero))
        Parallel.ranges(outputs, of: tileRows) { rows in
          let values = weight.rows(rows).widened()
          var job = pare_hqq_job()
          (job.source, job.columns, job.group) = (values.floats, inputs, group)
          job.bits = Int32(codec.bits)
          job.symmetric = codec.isSymmetric ? 1 : 0
          job.scale_type = codec.scaleType.kernelType
          (job.p, job.beta, job.kappa) = (norm, beta, kappa)
          (job.iterations, job.starts, job.shrink) = (Int32(iterations), Int32(starts), 0.1)
          job.scales = scales.value + rows.lowerBound * groups
          job.zeros = zeros.value + rows.lowerBound * groups
          let scratch = Tensor.zeros([pare_hqq_scratch_floats(group)])
          withExtendedLifetime((values, scratch)) {
            pare_hqq_rows(&job, 0, rows.count, UnsafeMutablePointer(mutating: scratch.floats))
          }
        }
      }
    }
    return AffineGrids(scales: scales, zeros: zeros, perRow: groups)
  }
}

extension DType {
  /// The C kernels' name of a type that scales are rounded to.
  fileprivate var kernelType: pare_affine_type {
    switch self {
    case .float16: PARE_AFFINE_F16
    case .bfloat16: PARE_AFFINE_BF16
    default: PARE_AFFINE_F32
    }
  }
}
