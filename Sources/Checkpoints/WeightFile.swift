public import Tensors

/// What is known of a stored tensor without reading its numbers.
public struct TensorInfo: Sendable, Hashable {
  public let name: String
  public let dtype: DType
  /// Sizes, slowest first.
  public let shape: [Int]
  /// Path of the file that holds it.
  public let file: String

  public var count: Int { shape.reduce(1, *) }
  public var byteCount: Int { count * dtype.byteCount }
}

/// Where a tensor lies in its file.
struct StoredTensor {
  let info: TensorInfo
  /// Offset in the file of the first element's first byte.
  let offset: Int
  /// Elements from one index to the next, per dimension; nil when row-major without holes.
  let strides: [Int]?
}

/// One mapped file of weights and the tensors in it, in stored order. Both formats end up here.
struct WeightFile {
  let file: MappedFile
  let tensors: [StoredTensor]
  let metadata: [String: String]
}

extension MappedFile {
  static func open(_ path: String) throws(CheckpointError) -> MappedFile {
    do throws(MappingError) {
      return try MappedFile(path: path)
    } catch {
      throw .unreadable(file: path, reason: error.reason)
    }
  }
}

enum Shape {
  /// The number of bytes of a row-major tensor, or nil if a size is negative, or some product of
  /// sizes does not fit an `Int` (also where another size is 0, so that every later product of a
  /// part of the sizes is safe).
  static func byteCount(_ shape: [Int], _ dtype: DType) -> Int? {
    var product = dtype.byteCount
    for size in shape where size != 0 {
      let (next, overflow) = product.multipliedReportingOverflow(by: size)
      guard size > 0 && !overflow else { return nil }
      product = next
    }
    return shape.contains(0) ? 0 : product
  }

  /// Strides of a row-major layout, in elements.
  static func rowMajorStrides(_ shape: [Int]) -> [Int] {
    var strides = [Int](repeating: 1, count: shape.count)
    for i in shape.indices.dropLast().reversed() { strides[i] = strides[i + 1] * shape[i + 1] }
    return strides
  }
}
