import CKernels

/// Keys and values of a text so far, one row of each per token and head, in the element type in
/// which they are kept. Head by head: `[heads, capacity, headDim]`.
///
/// The cache that owns this value is the one owner that writes a tensor after it was made: rows
/// beyond those filled, which nobody reads before they are.
public struct KeyValueRows: Sendable {
  /// What a cached number costs: four, two or one byte; an int8 row has a float32 scale of its own.
  public enum ElementType: String, Sendable, CaseIterable {
    case float32, float16, int8

    public var byteCount: Int { dtype.byteCount }

    var dtype: DType {
      switch self {
      case .float32: .float32
      case .float16: .float16
      case .int8: .int8
      }
    }

    var kernelType: pare_cache_type {
      switch self {
      case .float32: PARE_CACHE_F32
      case .float16: PARE_CACHE_F16
      case .int8: PARE_CACHE_I8
      }
    }
  }

  public let type: ElementType
  package let keys: Tensor
  package let values: Tensor
  /// `[heads, capacity]` for int8.
  package let keyScales: Tensor?
  package let valueScales: Tensor?

  public var heads: Int { keys.shape[0] }
  public var capacity: Int { keys.shape[1] }
  public var headDim: Int { keys.shape[2] }

  public var byteCount: Int {
    keys.byteCount + values.byteCount + (keyScales?.byteCount ?? 0) + (valueScales?.byteCount ?? 0)
  }

  /// Room for `capacity` tokens; nothing in it yet.
  package init(type: ElementType, heads: Int, capacity: Int, headDim: Int) {
    func rows() -> Tensor {
      Tensor(
        dtype: type.dtype, shape: [heads, capacity, headDim],
        storage: Storage(byteCount: heads * capacity * headDim * type.byteCount))
    }
    func scales() -> Tensor? {
      type != .int8
        ? nil
        : Tensor(
          dtype: .float32, shape: [heads, capacity],
          storage: Storage(byteCount: heads * capacity * 4))
    }
    self.type = type
    (keys, values) = (rows(), rows())
    (keyScales, valueScales) = (scales(), scales())
  }

  /// Stores the rows of new tokens, `[tokens, heads · headDim]` in float32, from a position on.
  package func store(keys newKeys: Tensor, values newValues: Tensor, at start: Int) {
    precondition(start + newKeys.rows <= capacity && newKeys.columns == heads * headDim)
    let (heads, headDim, capacity) = (heads, headDim, capacity)
    for (rows, target, scales) in [(newKeys, keys, keyScales), (newValues, values, valueScales)] {
      let source = Unshared(rows.floats)
      let base = Unshared(UnsafeMutableRawPointer(mutating: target.rawPointer))
      let scales = Unshared(scales.map { UnsafeMutablePointer(mutating: $0.floats) })
      // Below a few thousand numbers a fork costs more than the copy.
      let piece = max(1, 16_384 / max(heads * headDim, 1))
      Parallel.ranges(rows.rows, of: piece) { tokens in
        for token in tokens {
          for head in 0..<heads {
            let row = head * capacity + start + token
            pare_cache_store(
              type.kernelType, source.value + (token * heads + head) * headDim, headDim,
              base.value + row * headDim * type.byteCount, scales.value.map { $0 + row })
          }
        }
      }
    }
  }

  /// What a file keeps: `keys`, `values` and for int8 `key_scales`, `value_scales`.
  package var components: [(name: String, tensor: Tensor)] {
    [("keys", keys), ("values", values)]
      + (keyScales.map { [("key_scales", $0)] } ?? [])
      + (valueScales.map { [("value_scales", $0)] } ?? [])
  }

  /// Rows from a file, all of whose `capacity` tokens are filled; nil where a component is absent or
  /// of another type or shape.
  package init?(
    type: ElementType, heads: Int, capacity: Int, headDim: Int,
    component: (String) -> Tensor?
  ) {
    func rows(_ name: String) -> Tensor? {
      component(name).flatMap {
        $0.dtype == type.dtype && $0.shape == [heads, capacity, headDim] ? $0 : nil
      }
    }
    func scales(_ name: String) -> Tensor? {
      component(name).flatMap {
        $0.dtype == .float32 && $0.shape == [heads, capacity] ? $0 : nil
      }
    }
    guard let keys = rows("keys"), let values = rows("values") else { return nil }
    (self.type, self.keys, self.values) = (type, keys, values)
    keyScales = type == .int8 ? scales("key_scales") : nil
    valueScales = type == .int8 ? scales("value_scales") : nil
    if type == .int8, keyScales == nil || valueScales == nil { return nil }
  }

  /// A copy with more room that holds the first `used` tokens.
  package func grown(to capacity: Int, used: Int) -> KeyValueRows {
    let copy = KeyValueRows(type: type, heads: heads, capacity: capacity, headDim: headDim)
    func move(_ from: Tensor?, _ to: Tensor?, rowBytes: Int) {
      guard let from, let to else { return }
      for head in 0..<heads {
        UnsafeMutableRawPointer(mutating: to.rawPointer + head * capacity * rowBytes).copyMemory(
          from: from.rawPointer + head * self.capacity * rowBytes, byteCount: used * rowBytes)
      }
    }
    move(keys, copy.keys, rowBytes: headDim * type.byteCount)
    move(values, copy.values, rowBytes: headDim * type.byteCount)
    move(keyScales, copy.keyScales, rowBytes: 4)
    move(valueScales, copy.valueScales, rowBytes: 4)
    return copy
  }
}
