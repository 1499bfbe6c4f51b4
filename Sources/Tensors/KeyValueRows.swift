import CKernels

/// Keys and values of a text so far, one row of each per token and head, in the element type in
/// which they are kept. Head by head: `[heads, capacity, headDim]`.
///
/// With four bits the newest tokens are kept in float16, because what is near matters most and a key's
/// grid runs over 32 tokens (Liu et al. 2024, "KIVI", arXiv:2402.02750, §3): see `ExactWindow`.
///
/// The cache that owns this value is the one owner that writes a tensor after it was made: rows
/// beyond those filled, which nobody reads before they are.
public struct KeyValueRows: Sendable {
  /// How a cached number is kept.
  public enum ElementType: String, Sendable, CaseIterable {
    case float32, float16
    /// 8 bits, with a float32 scale for each row.
    case int8
    /// 8 bits with an exponent (E4M3), without scales; magnitudes beyond 448 saturate.
    case fp8
    /// 4 bits, with a float16 scale and minimum for 32 tokens of a key's channel and 32 channels of a
    /// value. The newest tokens are float16.
    case int4

    fileprivate var keyType: pare_cache_type {
      switch self {
      case .float32: PARE_CACHE_F32
      case .float16: PARE_CACHE_F16
      case .int8: PARE_CACHE_I8
      case .fp8: PARE_CACHE_E4M3
      case .int4: PARE_CACHE_I4_COLUMNS
      }
    }

    fileprivate var valueType: pare_cache_type {
      self == .int4 ? PARE_CACHE_I4_ROWS : keyType
    }

    /// Bytes that one more token costs in one block, keys and values, of a text so long that a
    /// window of exact tokens does not count.
    public func bytesPerToken(heads: Int, headDim: Int) -> Double {
      let keys = Double(pare_cache_row_bytes(keyType, headDim))
      let values = Double(pare_cache_row_bytes(valueType, headDim))
      let scales = self == .int8 ? 8.0 : 0
      return Double(heads)
        * ((self == .int4 ? keys / Double(Self.groupTokens) : keys) + values + scales)
    }

    static let groupTokens = Int(PARE_CACHE_GROUP)
    /// Newest tokens that int4 keeps exactly at least.
    public static let defaultWindow = 128
  }

  public let type: ElementType
  public let heads: Int
  public let capacity: Int
  public let headDim: Int
  /// `[heads, capacity, headDim]`; with int4 the bytes of 32 tokens' keys, or of a token's values, take
  /// the places of the last dimensions.
  package let keys: Tensor
  package let values: Tensor
  /// `[heads, capacity]` for int8.
  package let keyScales: Tensor?
  package let valueScales: Tensor?
  /// For int4.
  let recent: ExactWindow?

  public var byteCount: Int {
    keys.byteCount + values.byteCount + (keyScales?.byteCount ?? 0) + (valueScales?.byteCount ?? 0)
      + (recent?.byteCount ?? 0)
  }

  /// Room for `capacity` tokens; nothing in it yet.
  ///
  /// - Parameter window: newest tokens that int4 keeps exactly; other types have no use for it.
  package init(
    type: ElementType, heads: Int, capacity: Int, headDim: Int,
    window: Int = ElementType.defaultWindow
  ) {
    self.init(
      type: type, heads: heads, capacity: capacity, headDim: headDim,
      recent: type == .int4 ? ExactWindow(tokens: window, heads: heads, headDim: headDim) : nil)
  }

  private init(type: ElementType, heads: Int, capacity: Int, headDim: Int, recent: ExactWindow?) {
    func scales() -> Tensor? {
      type != .int8
        ? nil
        : Tensor(
          dtype: .float32, shape: [heads, capacity],
          storage: Storage(byteCount: heads * capacity * 4))
    }
    (self.type, self.heads, self.headDim, self.recent) = (type, heads, headDim, recent)
    let tokens = ElementType.groupTokens
    self.capacity = type == .int4 ? (capacity + tokens - 1) / tokens * tokens : capacity
    let shapes = Self.shapes(type, heads: heads, capacity: self.capacity, headDim: headDim)
    func rows(_ shape: [Int]) -> Tensor {
      Tensor(
        dtype: Self.dtype(type), shape: shape,
        storage: Storage(byteCount: shape.reduce(1, *) * Self.dtype(type).byteCount))
    }
    (keys, values) = (rows(shapes.keys), rows(shapes.values))
    (keyScales, valueScales) = (scales(), scales())
  }

  private static func dtype(_ type: ElementType) -> DType {
    switch type {
    case .float32: .float32
    case .float16: .float16
    case .int8: .int8
    case .fp8: .float8e4m3
    case .int4: .uint8
    }
  }

  private static func shapes(
    _ type: ElementType, heads: Int, capacity: Int, headDim: Int
  ) -> (keys: [Int], values: [Int]) {
    guard type == .int4 else {
      return ([heads, capacity, headDim], [heads, capacity, headDim])
    }
    return (
      [heads, capacity / ElementType.groupTokens, pare_cache_row_bytes(type.keyType, headDim)],
      [heads, capacity, pare_cache_row_bytes(type.valueType, headDim)]
    )
  }

  /// Stores the rows of new tokens, `[tokens, heads · headDim]` in float32, from a position on.
  package func store(keys newKeys: Tensor, values newValues: Tensor, at start: Int) {
    precondition(start + newKeys.rows <= capacity && newKeys.columns == heads * headDim)
    guard let recent else {
      return storeRows(keys: newKeys, values: newValues, at: start)
    }
    recent.store(keys: newKeys, values: newValues, at: start)
    let groups = recent.takeGroups(before: start + newKeys.rows)
    let (heads, tokens) = (heads, ElementType.groupTokens)
    Parallel.forEach(groups.count * heads) { piece in
      encode(group: groups.lowerBound + piece / heads, head: piece % heads, tokens, recent)
    }
  }

  /// Stores rows as they are kept, one by one.
  func storeRows(keys newKeys: Tensor, values newValues: Tensor, at start: Int) {
    let (heads, headDim, capacity) = (heads, headDim, capacity)
    let (kind, rowBytes) = (type.keyType, pare_cache_row_bytes(type.keyType, headDim))
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
              kind, source.value + (token * heads + head) * headDim, headDim,
              base.value + row * rowBytes, scales.value.map { $0 + row })
          }
        }
      }
    }
  }

  /// Rounds 32 tokens of one head to four bits, from the float16 that they were until now.
  private func encode(group: Int, head: Int, _ tokens: Int, _ recent: ExactWindow) {
    let shapes = (keys.shape[1] * keys.shape[2], values.shape[1] * values.shape[2])
    let rowBytes = values.shape[2]
    withUnsafeTemporaryAllocation(of: Float.self, capacity: tokens * headDim) { widened in
      guard let base = widened.baseAddress else { return }
      var rows = recent.keyRows(head)
      pare_cache_widen(&rows, group * tokens, tokens, headDim, base, headDim)
      pare_cache_store_columns(
        base, headDim,
        UnsafeMutableRawPointer(mutating: keys.rawPointer) + head * shapes.0
          + group * keys.shape[2])
      rows = recent.valueRows(head)
      pare_cache_widen(&rows, group * tokens, tokens, headDim, base, headDim)
      for token in 0..<tokens {
        pare_cache_store(
          type.valueType, base + token * headDim, headDim,
          UnsafeMutableRawPointer(mutating: values.rawPointer) + head * shapes.1
            + (group * tokens + token) * rowBytes, nil)
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
  /// of another type or shape, and with int4, whose newest tokens no file keeps.
  package init?(
    type: ElementType, heads: Int, capacity: Int, headDim: Int,
    component: (String) -> Tensor?
  ) {
    func rows(_ name: String) -> Tensor? {
      component(name).flatMap {
        $0.dtype == Self.dtype(type) && $0.shape == [heads, capacity, headDim] ? $0 : nil
      }
    }
    func scales(_ name: String) -> Tensor? {
      component(name).flatMap {
        $0.dtype == .float32 && $0.shape == [heads, capacity] ? $0 : nil
      }
    }
    guard type != .int4, let keys = rows("keys"), let values = rows("values") else { return nil }
    (self.type, self.keys, self.values) = (type, keys, values)
    (self.heads, self.capacity, self.headDim, recent) = (heads, capacity, headDim, nil)
    keyScales = type == .int8 ? scales("key_scales") : nil
    valueScales = type == .int8 ? scales("value_scales") : nil
    if type == .int8, keyScales == nil || valueScales == nil { return nil }
  }

  /// A copy with more room that holds the first `used` tokens. An exact window is handed on: of two
  /// such values one may be written.
  package func grown(to capacity: Int, used: Int) -> KeyValueRows {
    let copy = KeyValueRows(
      type: type, heads: heads, capacity: capacity, headDim: headDim, recent: recent)
    func move(_ from: Tensor?, _ to: Tensor?, rows used: Int) {
      guard let from, let to else { return }
      let rowBytes = from.byteCount / max(from.shape[0] * from.shape[1], 1)
      for head in 0..<heads {
        UnsafeMutableRawPointer(mutating: to.rawPointer + head * to.shape[1] * rowBytes)
          .copyMemory(
            from: from.rawPointer + head * from.shape[1] * rowBytes, byteCount: used * rowBytes)
      }
    }
    let tokens = ElementType.groupTokens
    move(keys, copy.keys, rows: type == .int4 ? (used + tokens - 1) / tokens : used)
    move(values, copy.values, rows: used)
    move(keyScales, copy.keyScales, rows: used)
    move(valueScales, copy.valueScales, rows: used)
    return copy
  }

  // MARK: Reading

  /// Tokens below this position are read as they are kept, the others exactly, by the query at
  /// `position`. It depends on the position alone, so a text gives the same numbers however it is cut.
  func firstExact(at position: Int) -> Int { recent?.firstExact(at: position) ?? 0 }

  func keyRows(_ head: Int, exact: Bool) -> pare_cache_rows {
    if exact, let recent { return recent.keyRows(head) }
    return rows(keys, keyScales, type.keyType, head)
  }

  func valueRows(_ head: Int, exact: Bool) -> pare_cache_rows {
    if exact, let recent { return recent.valueRows(head) }
    return rows(values, valueScales, type.valueType, head)
  }

  func rows(
    _ tensor: Tensor, _ scales: Tensor?, _ type: pare_cache_type, _ head: Int
  ) -> pare_cache_rows {
    pare_cache_rows(
      type: type, rows: tensor.rawPointer + head * (tensor.byteCount / heads),
      scales: scales.map { $0.floats + head * capacity }, first: 0)
  }

  /// The longest text, up to `length` tokens, that the first of these rows go on with as if no more
  /// had come: all of it, or nothing where exact rows are gone that its next token would read.
  package func reusable(upTo length: Int) -> Int {
    guard let recent, recent.firstExact(at: length) < recent.start else { return length }
    return 0
  }
}
