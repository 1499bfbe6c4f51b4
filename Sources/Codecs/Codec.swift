public import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// One stored format of a matrix: bytes ⇄ values, with no idea of models or files.
///
/// Laws every codec keeps, checked by one generic checker over all of them:
/// a value inside the grid comes back within half a step; encoding decoded values again on the same
/// grid changes no byte; components written and read back are the same weight.
public protocol Codec: Sendable {
  associatedtype Encoded: StoredWeight

  /// Encodes on the grid that covers each group's range.
  /// - Parameter weight: `[outputs, inputs]` of any floating-point type.
  /// - Throws: `CodecError.notFinite`, `.scaleOverflow`, `.unsupportedShape`.
  func encode(_ weight: Tensor) throws(CodecError) -> Encoded

  /// Encodes on a grid that exists already.
  /// - Parameter weight: the shape of `grid`.
  func encode(_ weight: Tensor, onGridOf grid: Encoded) throws(CodecError) -> Encoded

  /// Builds a weight from stored tensors, named by their suffix after the module's path
  /// (`weight_packed`, `weight_scale` …). Nothing is copied.
  /// - Throws: `CodecError.missing`, `.wrongType`, `.wrongShape`, … naming the component.
  func decode(_ components: [String: Tensor]) throws(CodecError) -> Encoded

  /// Half the distance between a value's neighbours on the grid at a position, or nil when the
  /// value lies outside what the grid can reach.
  func halfStep(at value: Float, row: Int, column: Int, in weight: Encoded) -> Float?
}

/// A weight that knows its stored form.
public protocol StoredWeight: Weight {
  /// The stored tensors in a fixed order, named by their suffix after the module's path and a dot.
  func encoded() -> [(suffix: String, tensor: Tensor)]
}

extension StoredWeight {
  public var storedBytes: Int { encoded().reduce(0) { $0 + $1.tensor.byteCount } }

  /// Whether every stored tensor agrees in name, type, shape and bytes: what a reloaded output is
  /// held to.
  public func isIdentical(to other: any StoredWeight) -> Bool {
    let mine = encoded()
    let theirs = other.encoded()
    return mine.count == theirs.count
      && zip(mine, theirs).allSatisfy { mine, theirs in
        mine.suffix == theirs.suffix && mine.tensor.isIdentical(to: theirs.tensor)
      }
  }
}

extension DenseWeight: StoredWeight {
  public func encoded() -> [(suffix: String, tensor: Tensor)] { [("weight", tensor)] }
}

extension TransposedWeight: StoredWeight {
  public func encoded() -> [(suffix: String, tensor: Tensor)] { [("weight", tensor)] }
}

extension Tensor {
  /// Equal type, shape and bytes.
  package func isIdentical(to other: Tensor) -> Bool {
    guard dtype == other.dtype, shape == other.shape else { return false }
    guard byteCount > 0 else { return true }
    return memcmp(rawPointer, other.rawPointer, byteCount) == 0
  }
}
