import CKernels
public import Tensors

/// A matrix of mostly zeros, its other weights kept row after row with their columns (CSR).
///
/// A weight takes its value and a column of 16 bits, or 32 where rows are longer than 65,536.
public struct SparseWeight: StoredWeight {
  public let outputs: Int
  public let inputs: Int
  /// int32 `[outputs + 1]`: row r holds weights `offsets[r]..<offsets[r + 1]`.
  private let offsets: Tensor
  /// uint16 or int32, rising within a row.
  private let columns: Tensor
  /// As stored.
  private let values: Tensor
  private let widened: Tensor

  /// Names of the components, after the module's path.
  public enum Suffix {
    public static let shape = "sparse_shape"
    public static let offsets = "sparse_offsets"
    public static let columns = "sparse_columns"
    public static let values = "sparse_values"
  }

  /// - Parameters:
  ///   - entries: for each row, columns in rising order and their values.
  ///   - valueType: float32, bfloat16 or float16.
  public init(
    inputs: Int, rows entries: [[(column: Int, value: Float)]], valueType: DType
  ) throws(CodecError) {
    var offsets = [0]
    for row in entries { offsets.append((offsets.last ?? 0) + row.count) }
    let all = entries.flatMap { $0 }
    self = try Self.decode([
      Suffix.shape: FormNumbers.sizes(entries.count, inputs),
      Suffix.offsets: FormNumbers.integers(offsets, .int32),
      Suffix.columns: FormNumbers.integers(all.map(\.column), Self.columnType(inputs: inputs)),
      Suffix.values: try Tensor(all.map(\.value), shape: [all.count]).stored(as: valueType),
    ])
  }

  private init(outputs: Int, inputs: Int, offsets: Tensor, columns: Tensor, values: Tensor) {
    self.outputs = outputs
    self.inputs = inputs
    self.offsets = offsets
    self.columns = columns
    self.values = values
    widened = values.widened()
  }

  /// What columns are stored as in a matrix of so many.
  static func columnType(inputs: Int) -> DType { inputs <= 1 << 16 ? .uint16 : .int32 }

  public static func decode(_ components: [String: Tensor]) throws(CodecError) -> SparseWeight {
    var reader = FormComponents(components)
    let (outputs, inputs) = try reader.takeSizes(Suffix.shape)
    let offsets = try reader.takeIntegers(Suffix.offsets, [.int32], count: outputs + 1)
    let values = try reader.takeNumbers(Suffix.values, [nil])
    guard offsets.first == 0, offsets.last == values.count,
      zip(offsets, offsets.dropFirst()).allSatisfy({ $0 <= $1 })
    else {
      throw .wrongValue(
        component: Suffix.offsets, reason: "rows do not follow each other from 0 to \(values.count)"
      )
    }
    let type = columnType(inputs: inputs)
    let columns = try reader.takeIntegers(Suffix.columns, [type], count: values.count)
    for (start, end) in zip(offsets, offsets.dropFirst()) {
      var last = -1
      for column in columns[start..<end] {
        guard column > last, column < inputs else {
          throw .wrongValue(
            component: Suffix.columns,
            reason: "column \(column) follows \(last) in a row of \(inputs)")
        }
        last = column
      }
    }
    try reader.finish()
    return SparseWeight(
      outputs: outputs, inputs: inputs, offsets: FormNumbers.integers(offsets, .int32),
      columns: FormNumbers.integers(columns, type), values: values)
  }

  /// Weights that are kept.
  public var entryCount: Int { values.count }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    [
      (Suffix.shape, FormNumbers.sizes(outputs, inputs)), (Suffix.offsets, offsets),
      (Suffix.columns, columns), (Suffix.values, values),
    ]
  }

  public func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    let (tokens, outputs) = (x.rows, outputs)
    let input = Unshared(x.floats)
    let product = Tensor(shape: [tokens, outputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(outputs, of: 64) { rows in
        var view = kernelView
        pare_sparse_multiply_rows(
          &view, rows.lowerBound, rows.upperBound, input.value, tokens,
          target.value + rows.lowerBound, outputs)
      }
    }
    return recordingInput(x, product)
  }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    target.initialize(repeating: 0, count: range.count * inputs)
    var view = kernelView
    for row in range {
      pare_sparse_add_row(&view, row, target + (row - range.lowerBound) * inputs)
    }
  }

  public func giveBack() { values.giveBack() }

  /// What the C kernels read; valid while this weight is.
  private var kernelView: pare_sparse {
    pare_sparse(
      rows: outputs, columns: inputs,
      offsets: offsets.rawPointer.assumingMemoryBound(to: Int32.self),
      indices: columns.rawPointer, is_wide: columns.dtype == .int32 ? 1 : 0, values: widened.floats)
  }
}
