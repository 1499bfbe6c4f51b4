import CKernels

extension Tensor {
  /// Elements per piece of parallel elementwise work.
  static let pieceSize = 1 << 15

  public static func zeros(_ shape: [Int]) -> Tensor {
    Tensor(shape: shape) { $0.initialize(repeating: 0) }
  }

  /// The same values as float32, exactly (float64 is rounded). A float32 tensor that is aligned is
  /// returned as it is.
  public func widened() -> Tensor {
    if dtype == .float32, Int(bitPattern: rawPointer) % 4 == 0 { return self }
    let source = Unshared(self)
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(count, of: Self.pieceSize) { range in
        source.value.widen(range, into: target.value + range.lowerBound)
      }
    }
  }

  /// Writes elements `range` as float32.
  package func widen(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    let source = rawPointer + range.lowerBound * dtype.byteCount
    switch dtype {
    case .float32:
      UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: range.count * 4)
    case .bfloat16: pare_bf16_to_f32(source, target, range.count)
    case .float16: pare_f16_to_f32(source, target, range.count)
    case .float64:
      for i in 0..<range.count {
        target[i] = Float(source.loadUnaligned(fromByteOffset: i * 8, as: Double.self))
      }
    case .float8e4m3, .float8e5m2, .float8e8m0:
      for i in 0..<range.count {
        target[i] = Float8.value(source.load(fromByteOffset: i, as: UInt8.self), dtype)
      }
    default: preconditionFailure("\(dtype) holds no floating-point values")
    }
  }

  /// A copy of a float32 tensor in another floating-point type, rounded half to even.
  public func converted(to type: DType) -> Tensor {
    let source = widened()
    switch type {
    case .float32: return source
    case .bfloat16:
      return Tensor(dtype: type, shape: shape) {
        pare_f32_to_bf16(source.floats, $0.baseAddress, source.count)
      }
    case .float16:
      return Tensor(dtype: type, shape: shape) {
        pare_f32_to_f16(source.floats, $0.baseAddress, source.count)
      }
    default: preconditionFailure("conversion to \(type) is not offered")
    }
  }

  package func hasSameBytes(as other: Tensor) -> Bool {
    dtype == other.dtype && shape == other.shape && bytes.elementsEqual(other.bytes)
  }
}

/// Eight-bit floats of the OCP formats.
enum Float8 {
  static func value(_ byte: UInt8, _ type: DType) -> Float {
    switch type {
    case .float8e8m0:
      return byte == 255 ? .nan : Float(sign: .plus, exponent: Int(byte) - 127, significand: 1)
    case .float8e4m3:
      if byte & 0x7f == 0x7f { return .nan }
      return small(byte, exponentBits: 4, mantissaBits: 3, bias: 7)
    default:
      if byte & 0x7f > 0x7c { return .nan }
      if byte & 0x7f == 0x7c { return byte & 0x80 == 0 ? .infinity : -.infinity }
      return small(byte, exponentBits: 5, mantissaBits: 2, bias: 15)
    }
  }

  private static func small(_ byte: UInt8, exponentBits: Int, mantissaBits: Int, bias: Int) -> Float
  {
    let exponent = Int(byte >> UInt8(mantissaBits)) & ((1 << exponentBits) - 1)
    let mantissa = Float(Int(byte) & ((1 << mantissaBits) - 1)) / Float(1 << mantissaBits)
    let magnitude =
      exponent == 0
      ? Float(sign: .plus, exponent: 1 - bias, significand: mantissa)
      : Float(sign: .plus, exponent: exponent - bias, significand: 1 + mantissa)
    return byte & 0x80 == 0 ? magnitude : -magnitude
  }
}
