public import Codecs
public import Tensors

/// What is known of a stored tensor without reading its numbers.
public struct TensorInfo: Sendable, Hashable {
  public let name: String
  /// `uint8` where `blockType` says what the bytes mean.
  public let dtype: DType
  /// Sizes, slowest first. Where there is a `blockType`, the sizes of the numbers it stands for;
  /// the tensor itself is then `[rows, bytes of a row]`.
  public let shape: [Int]
  /// Path of the file that holds it.
  public let file: String
  /// How a GGUF file packs the numbers; nil where they are plain.
  public let blockType: GGUFType?

  package init(
    name: String, dtype: DType, shape: [Int], file: String, blockType: GGUFType? = nil
  ) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.file = file
    self.blockType = blockType
  }

  public var count: Int { shape.reduce(1, *) }
  public var byteCount: Int { storedShape.reduce(dtype.byteCount, *) }

  /// Sizes of the tensor as it is read.
  public var storedShape: [Int] {
    guard let blockType, let inputs = shape.last else { return shape }
    return [shape.dropLast().reduce(1, *), blockType.rowBytes(inputs: inputs)]
  }

  /// What the numbers are stored as: `BF16`, `Q4_K`.
  public var storage: String { blockType?.name ?? dtype.rawValue }
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
