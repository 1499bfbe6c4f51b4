public import Calibration
public import Codecs
public import Tensors

/// Weights of -1, 0 and 1 times a scale α for each group: the exact least-squares fit.
///
/// For n weights, `Σ (w - α·t)²` is smallest for some k when t are the signs of the k largest and zero
/// elsewhere, and α their mean magnitude; the error is then `Σ w² - S²/k` with S the sum of those k
/// (Li and Liu 2016, Ternary Weight Networks, arXiv:1605.04711, equations 3 to 5). They approximate
/// the best k by the threshold 0.7 · mean|w|; sorting finds it exactly. Errors may be weighted by the
/// mean square h of their inputs, which turns S into `Σ h·|w|` and k into `Σ h`. α is then rounded
/// to its stored type and every weight above α/2 takes its sign, which is best for that α.
public struct TernaryLeastSquares: WeightMethod, Hashable {
  /// Columns that share a scale, the last group of a row perhaps fewer; nil for a whole row.
  public var groupSize: Int?
  public var packing: TernaryWeight.Packing
  /// Type of the scales: float32, bfloat16 or float16.
  public var scaleType: DType
  /// Whether errors are weighted by the mean squares of their inputs.
  public var weighsInputs: Bool

  public init(
    groupSize: Int? = nil, packing: TernaryWeight.Packing = .bits, scaleType: DType = .float16,
    weighsInputs: Bool = false
  ) {
    self.groupSize = groupSize
    self.packing = packing
    self.scaleType = scaleType
    self.weighsInputs = weighsInputs
  }

  public var needs: StatisticsNeeds { weighsInputs ? .magnitudes : [] }

  /// - Parameter weight: `[outputs, inputs]`; its file pages are given back afterwards.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    defer { weight.giveBack() }
    let values = try weight.finiteMatrix()
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let size = groupSize ?? max(inputs, 1)
    guard size >= 1 else {
      throw .unsupportedSetting("groups of \(size) columns do not exist; choose 1 or more.")
    }
    let importance = weighsInputs ? statistics.meanSquare.map(Double.init) : nil
    let groups = max((inputs + size - 1) / size, 1)
    let fits: [[(scale: Float, codes: [Int8])]] = Parallel.map(outputs) { row in
      (0..<groups).map { group in
        let columns = group * size..<min((group + 1) * size, inputs)
        let own = Array(
          values[row * inputs + columns.lowerBound..<row * inputs + columns.upperBound])
        return fit(own, importance.map { Array($0[columns]) })
      }
    }
    do {
      let stored = try TernaryWeight(
        codes: fits.flatMap { $0.flatMap(\.codes) }, scales: fits.flatMap { $0.map(\.scale) },
        outputs: outputs, inputs: inputs, groupSize: size, packing: packing, scaleType: scaleType)
      return CompressedWeight(stored, of: weight, statistics)
    } catch {
      throw CompressionError(error)
    }
  }

  private func fit(_ values: [Double], _ importance: [Double]?) -> (scale: Float, codes: [Int8]) {
    let order = values.indices.sorted { (abs(values[$0]), $1) > (abs(values[$1]), $0) }
    var (sum, size) = (0.0, 0.0)
    var (best, gain) = (0.0, 0.0)
    for index in order {
      let h = importance?[index] ?? 1
      sum += h * abs(values[index])
      size += h
      guard size > 0, sum * sum / size > gain else { continue }
      (best, gain) = (sum / size, sum * sum / size)
    }
    let scale = scaleType.rounded(best)
    let codes = values.map { value -> Int8 in
      guard scale > 0, abs(value) > Double(scale) / 2 else { return 0 }
      return value < 0 ? -1 : 1
    }
    return (scale, codes)
  }
}

extension DType {
  /// A number as it comes back from this type (float32, bfloat16 or float16).
  func rounded(_ value: Double) -> Float {
    guard FormNumbers.types.contains(self) else { return Float(value) }
    return Tensor([Float(value)], shape: [1]).converted(to: self).widened().floats[0]
  }
}
