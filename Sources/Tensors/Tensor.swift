import CKernels

/// A row-major array of numbers over shared storage. Arithmetic is in `Float` and eager; tensors of
/// other element types are read through `widened()` or by kernels that widen as they go.
public struct Tensor: Sendable {
  public let dtype: DType
  /// Sizes, slowest first: `[rows, columns]`.
  public let shape: [Int]
  package private(set) var storage: Storage
  /// Where this tensor's first byte lies in `storage`.
  package let byteOffset: Int
  /// Its place in a recorded computation; nil while nothing is to be differentiated.
  package var node: GradientNode?

  package init(dtype: DType, shape: [Int], storage: Storage, byteOffset: Int = 0) {
    precondition(byteOffset >= 0)
    precondition(byteOffset + shape.reduce(1, *) * dtype.byteCount <= storage.byteCount)
    self.dtype = dtype
    self.shape = shape
    self.storage = storage
    self.byteOffset = byteOffset
  }

  /// A new float32 tensor whose elements the closure fills; they start uninitialized.
  public init<E: Error>(
    shape: [Int], initializing fill: (UnsafeMutableBufferPointer<Float>) throws(E) -> Void
  ) throws(E) {
    let count = shape.reduce(1, *)
    let storage = Storage(byteCount: count * 4)
    self.init(dtype: .float32, shape: shape, storage: storage)
    let start = storage.base.bindMemory(to: Float.self, capacity: count)
    try fill(UnsafeMutableBufferPointer(start: start, count: count))
  }

  /// A new tensor of any element type whose bytes the closure fills; they start uninitialized.
  public init<E: Error>(
    dtype: DType, shape: [Int],
    initializingBytes fill: (UnsafeMutableRawBufferPointer) throws(E) -> Void
  ) throws(E) {
    let byteCount = shape.reduce(1, *) * dtype.byteCount
    let storage = Storage(byteCount: byteCount)
    self.init(dtype: dtype, shape: shape, storage: storage)
    try fill(UnsafeMutableRawBufferPointer(start: storage.base, count: byteCount))
  }

  public init(_ values: [Float], shape: [Int]) {
    precondition(values.count == shape.reduce(1, *))
    self.init(shape: shape) { target in _ = target.initialize(from: values) }
  }

  public var count: Int { shape.reduce(1, *) }
  public var byteCount: Int { count * dtype.byteCount }
  /// Size of the last dimension.
  public var columns: Int { shape.last ?? 1 }
  /// Product of all dimensions but the last.
  public var rows: Int { shape.dropLast().reduce(1, *) }

  package var rawPointer: UnsafeRawPointer { UnsafeRawPointer(storage.base + byteOffset) }
  package var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: rawPointer, count: byteCount)
  }

  /// The elements of a float32 tensor, valid while the tensor is.
  package var floats: UnsafePointer<Float> {
    precondition(dtype == .float32, "float32 expected, found \(dtype)")
    return rawPointer.assumingMemoryBound(to: Float.self)
  }

  public func reshaped(_ shape: [Int]) -> Tensor {
    precondition(shape.reduce(1, *) == count)
    let view = Tensor(dtype: dtype, shape: shape, storage: storage, byteOffset: byteOffset)
    return view.recorded(from: self) { [place] in place.receive($0) }
  }

  /// Rows `range` of a matrix, sharing storage.
  public func rows(_ range: Range<Int>) -> Tensor {
    precondition(shape.count == 2 && range.lowerBound >= 0 && range.upperBound <= shape[0])
    let view = Tensor(
      dtype: dtype, shape: [range.count, shape[1]], storage: storage,
      byteOffset: byteOffset + range.lowerBound * shape[1] * dtype.byteCount)
    let at = range.lowerBound * shape[1]
    return view.recorded(from: self) { [place] gradient in
      place.accumulate { pare_accumulate(1, gradient.floats, $0 + at, gradient.count) }
    }
  }

  /// Whether no other tensor or operation holds this one's memory.
  mutating func isSoleHolder() -> Bool { isKnownUniquelyReferenced(&storage) }

  /// Adds in place: for sums whose one owner the caller is.
  func add(_ other: Tensor) {
    precondition(count == other.count)
    let target = Unshared(UnsafeMutablePointer(mutating: floats))
    let source = Unshared(other.floats)
    Parallel.ranges(count, of: Self.pieceSize) { range in
      let at = target.value + range.lowerBound
      pare_add(at, source.value + range.lowerBound, at, range.count)
    }
  }

  /// A copy of a float32 tensor's elements.
  public var array: [Float] { Array(UnsafeBufferPointer(start: floats, count: count)) }

  /// Gives the file pages under a mapped tensor back; they return from the file when touched.
  public func giveBack() {
    guard let file = storage.owner else { return }
    let start = UnsafeRawPointer(storage.base + byteOffset) - file.base
    file.giveBack(start..<(start + byteCount))
  }
}
