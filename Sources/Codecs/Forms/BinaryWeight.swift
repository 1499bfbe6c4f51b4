import CKernels
public import Tensors

/// Signs times scales: one bit a weight and plane, multiplied from the bits.
///
///     W = Σₚ  scale[p, row, g(column)] · sign[p, row, column] · factor[column]
///
/// Columns are kept in runs that share a scale for each row; which columns lie together is free, so
/// that an order may bring those of one kind side by side. One plane, one run and a factor for each
/// column is OneBit's form; two planes and runs that tell salient columns from others are BiLLM's.
public struct BinaryWeight: StoredWeight {
  public let outputs: Int
  public let inputs: Int
  /// uint8 `[planes, outputs, ceil(inputs / 8)]`, least significant bit first, set for plus.
  private let signs: Tensor
  /// As stored, `[planes, outputs, groups]`.
  private let scales: Tensor
  private let widenedScales: Tensor
  /// int32 `[groups + 1]`: run g holds the kept columns `offsets[g]..<offsets[g + 1]`.
  private let offsets: Tensor
  /// int32 `[inputs]`: which column of W is kept at a place; nil where they lie as in W.
  private let order: [Int]?
  /// As stored, `[inputs]`, by W's columns.
  private let factors: Tensor?
  private let widenedFactors: Tensor?

  /// Names of the components, after the module's path.
  public enum Suffix {
    public static let signs = "binary_signs"
    public static let scales = "binary_scales"
    public static let offsets = "binary_offsets"
    public static let order = "binary_order"
    public static let factors = "binary_column_factors"
  }

  public var planes: Int { signs.shape[0] }
  public var groups: Int { offsets.count - 1 }

  /// - Parameters:
  ///   - signs: for each plane, `outputs × inputs` signs in the order kept, true for plus.
  ///   - scales: for each plane, `outputs × groups`.
  ///   - offsets: `groups + 1` numbers rising from 0 to `inputs`.
  ///   - order: the column of W at each place, if not its own.
  ///   - columnFactors: one for each column of W, if not 1.
  ///   - scaleType: float32, bfloat16 or float16.
  public init(
    signs: [[Bool]], scales: [[Float]], offsets: [Int], outputs: Int, order: [Int]? = nil,
    columnFactors: [Float]? = nil, scaleType: DType
  ) throws(CodecError) {
    let inputs = offsets.last ?? 0
    let groups = offsets.count - 1
    precondition(signs.count == scales.count && signs.allSatisfy { $0.count == outputs * inputs })
    precondition(scales.allSatisfy { $0.count == outputs * groups })
    let stride = (inputs + 7) / 8
    let bits = Tensor(dtype: .uint8, shape: [signs.count, outputs, stride]) { bytes in
      for index in bytes.indices { bytes[index] = 0 }
      for (plane, values) in signs.enumerated() {
        for (index, isPlus) in values.enumerated() where isPlus {
          let (row, column) = (index / inputs, index % inputs)
          bytes[(plane * outputs + row) * stride + column / 8] |= 1 << UInt8(column % 8)
        }
      }
    }
    var components = [
      Suffix.signs: bits,
      Suffix.scales: try Tensor(scales.flatMap { $0 }, shape: [signs.count, outputs, groups])
        .stored(as: scaleType),
      Suffix.offsets: FormNumbers.integers(offsets, .int32),
    ]
    if let order { components[Suffix.order] = FormNumbers.integers(order, .int32) }
    if let columnFactors {
      components[Suffix.factors] = try Tensor(columnFactors, shape: [columnFactors.count])
        .stored(as: scaleType)
    }
    self = try Self.decode(components)
  }

  private init(
    signs: Tensor, scales: Tensor, offsets: Tensor, inputs: Int, order: [Int]?, factors: Tensor?
  ) {
    outputs = signs.shape[1]
    self.inputs = inputs
    self.signs = signs
    self.scales = scales
    widenedScales = scales.widened()
    self.offsets = offsets
    self.order = order
    self.factors = factors
    widenedFactors = factors?.widened()
  }

  public static func decode(_ components: [String: Tensor]) throws(CodecError) -> BinaryWeight {
    var reader = FormComponents(components)
    let offsets = try reader.takeIntegers(Suffix.offsets, [.int32], count: nil)
    guard offsets.count >= 2, offsets.first == 0,
      zip(offsets, offsets.dropFirst()).allSatisfy({ $0 <= $1 })
    else {
      throw .wrongValue(component: Suffix.offsets, reason: "runs of columns do not rise from 0")
    }
    let inputs = offsets[offsets.count - 1]
    let signs = try reader.take(Suffix.signs, [.uint8], [nil, nil, (inputs + 7) / 8])
    guard signs.shape[0] >= 1 else {
      throw .wrongValue(component: Suffix.signs, reason: "it has no planes")
    }
    let scales = try reader.takeNumbers(
      Suffix.scales, [signs.shape[0], signs.shape[1], offsets.count - 1])
    var order: [Int]?
    if reader.contains(Suffix.order) {
      let stored = try reader.takeIntegers(Suffix.order, [.int32], count: inputs)
      try FormNumbers.checkPermutation(stored, Suffix.order)
      order = stored
    }
    let factors =
      reader.contains(Suffix.factors) ? try reader.takeNumbers(Suffix.factors, [inputs]) : nil
    try reader.finish()
    return BinaryWeight(
      signs: signs, scales: scales, offsets: FormNumbers.integers(offsets, .int32), inputs: inputs,
      order: order, factors: factors)
  }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    var components = [
      (suffix: Suffix.signs, tensor: signs), (Suffix.scales, scales), (Suffix.offsets, offsets),
    ]
    if let order { components.append((Suffix.order, FormNumbers.integers(order, .int32))) }
    if let factors { components.append((Suffix.factors, factors)) }
    return components
  }

  /// `x · Wᵀ`. Few tokens are multiplied bit by bit; for many, tiles of W are opened for sgemm.
  public func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    return recordingInput(x, product(x))
  }

  private func product(_ x: Tensor) -> Tensor {
    guard x.rows <= Tensor.fewRows else {
      return tiledProduct(x, outputs: outputs) { dequantizeRows($0, into: $1) }
    }
    let (tokens, outputs) = (x.rows, outputs)
    let arranged = arranged(x)
    let input = Unshared(arranged.floats)
    return Tensor(shape: [tokens, outputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(outputs, of: 32) { rows in
        var view = kernelView
        pare_binary_multiply_rows(
          &view, rows.lowerBound, rows.upperBound, input.value, tokens,
          target.value + rows.lowerBound, outputs)
      }
    }
  }

  /// x times the factors, its columns in the order kept.
  private func arranged(_ x: Tensor) -> Tensor {
    guard order != nil || widenedFactors != nil else { return x.detached }
    let inputs = inputs
    return Tensor(shape: x.shape) { target in
      let source = x.floats
      for row in 0..<x.rows {
        for place in 0..<inputs {
          let column = order?[place] ?? place
          target[row * inputs + place] =
            source[row * inputs + column] * (widenedFactors?.floats[column] ?? 1)
        }
      }
    }
  }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    guard inputs > 0 else { return }
    var view = kernelView
    withUnsafeTemporaryAllocation(of: Float.self, capacity: inputs) { scratch in
      guard let kept = scratch.baseAddress else { return }
      for row in range {
        let line = target + (row - range.lowerBound) * inputs
        pare_binary_decode_row(&view, row, order == nil ? line : kept)
        if let order { for place in 0..<inputs { line[order[place]] = kept[place] } }
        guard let factors = widenedFactors?.floats else { continue }
        for column in 0..<inputs { line[column] *= factors[column] }
      }
    }
  }

  public func giveBack() {
    signs.giveBack()
    scales.giveBack()
  }

  /// What the C kernels read; valid while this weight is.
  private var kernelView: pare_binary {
    pare_binary(
      rows: outputs, columns: inputs, planes: planes, groups: groups,
      signs: signs.rawPointer.assumingMemoryBound(to: UInt8.self), stride: (inputs + 7) / 8,
      scales: widenedScales.floats,
      offsets: offsets.rawPointer.assumingMemoryBound(to: Int32.self))
  }
}

extension FormNumbers {
  /// - Throws: `CodecError.wrongValue` unless each number below their count is there once.
  static func checkPermutation(_ order: [Int], _ component: String) throws(CodecError) {
    var seen = [Bool](repeating: false, count: order.count)
    for column in order {
      guard order.indices.contains(column), !seen[column] else {
        throw .wrongValue(component: component, reason: "it is no order of \(order.count) columns")
      }
      seen[column] = true
    }
  }
}
