package import Tensors

/// Stored tensors handed out one after the other, each checked on the way.
struct FormComponents {
  private var rest: [String: Tensor]

  init(_ components: [String: Tensor]) { rest = components }

  func contains(_ name: String) -> Bool { rest[name] != nil }

  /// - Parameters:
  ///   - types: those allowed.
  ///   - shape: nil where a side may have any length.
  mutating func take(_ name: String, _ types: [DType], _ shape: [Int?]) throws(CodecError) -> Tensor
  {
    guard let tensor = rest.removeValue(forKey: name) else { throw .missing(component: name) }
    guard types.contains(tensor.dtype) else {
      throw .wrongType(
        component: name, expected: types.map(\.rawValue).joined(separator: " or "),
        actual: tensor.dtype)
    }
    guard tensor.shape.count == shape.count,
      zip(tensor.shape, shape).allSatisfy({ $1 == nil || $0 == $1 })
    else {
      let expected = zip(0..., shape).map { index, side in
        side ?? (index < tensor.shape.count ? tensor.shape[index] : 0)
      }
      throw .wrongShape(component: name, expected: expected, actual: tensor.shape)
    }
    return tensor
  }

  /// A matrix's `[outputs, inputs]`, stored as two 64-bit numbers.
  mutating func takeSizes(_ name: String) throws(CodecError) -> (outputs: Int, inputs: Int) {
    let tensor = try take(name, [.int64], [2])
    let sizes = (0..<2).map { tensor.bytes.loadUnaligned(fromByteOffset: $0 * 8, as: Int64.self) }
    // A bound well above any real layer keeps products of sizes from overflowing.
    guard sizes.allSatisfy({ $0 >= 0 && $0 <= 1 << 30 }) else {
      throw .wrongValue(component: name, reason: "it says \(sizes)")
    }
    return (Int(sizes[0]), Int(sizes[1]))
  }

  /// Whole numbers of a vector, 16 or 32 bits each.
  mutating func takeIntegers(_ name: String, _ types: [DType], count: Int?)
    throws(CodecError) -> [Int]
  {
    let tensor = try take(name, types, [count])
    return (0..<tensor.count).map { index in
      tensor.dtype == .uint16
        ? Int(tensor.bytes.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self))
        : Int(tensor.bytes.loadUnaligned(fromByteOffset: index * 4, as: Int32.self))
    }
  }

  /// Floating-point numbers, all finite.
  mutating func takeNumbers(_ name: String, _ shape: [Int?]) throws(CodecError) -> Tensor {
    let tensor = try take(name, FormNumbers.types, shape)
    guard tensor.widened().isFinite else {
      throw .wrongValue(component: name, reason: "a number in it is NaN or infinite")
    }
    return tensor
  }

  /// - Throws: `CodecError.unexpected` for the first component that nobody took.
  func finish() throws(CodecError) {
    if let stray = rest.keys.sorted().first { throw .unexpected(component: stray) }
  }
}

/// Types that scales, factors and single weights are stored in.
package enum FormNumbers {
  package static let types: [DType] = [.float32, .bfloat16, .float16]

  static func check(_ type: DType) throws(CodecError) {
    guard types.contains(type) else {
      throw .unsupportedSetting(
        "numbers cannot be stored as \(type.rawValue) here; choose F32, BF16 or F16.")
    }
  }

  /// `[outputs, inputs]` as a component.
  static func sizes(_ outputs: Int, _ inputs: Int) -> Tensor {
    Tensor(dtype: .int64, shape: [2]) { bytes in
      bytes.storeBytes(of: Int64(outputs).littleEndian, toByteOffset: 0, as: Int64.self)
      bytes.storeBytes(of: Int64(inputs).littleEndian, toByteOffset: 8, as: Int64.self)
    }
  }

  /// Whole numbers as a component of 16 or 32 bits.
  static func integers(_ values: [Int], _ type: DType) -> Tensor {
    Tensor(dtype: type, shape: [values.count]) { bytes in
      for (index, value) in values.enumerated() {
        if type == .uint16 {
          bytes.storeBytes(
            of: UInt16(truncatingIfNeeded: value), toByteOffset: index * 2, as: UInt16.self)
        } else {
          bytes.storeBytes(
            of: Int32(truncatingIfNeeded: value), toByteOffset: index * 4, as: Int32.self)
        }
      }
    }
  }
}

extension Tensor {
  /// Whether no number of a float32 tensor is NaN or infinite.
  package var isFinite: Bool {
    let values = floats
    for index in 0..<count where !values[index].isFinite { return false }
    return true
  }

  /// A float32 matrix in a stored type.
  /// - Throws: `CodecError.scaleOverflow` where a number does not fit the type.
  package func stored(as type: DType) throws(CodecError) -> Tensor {
    try FormNumbers.check(type)
    let result = converted(to: type)
    let widened = result.widened()
    for index in 0..<count where !widened.floats[index].isFinite {
      throw .scaleOverflow(
        row: index / max(columns, 1), column: index % max(columns, 1), scaleType: type)
    }
    return result
  }
}
