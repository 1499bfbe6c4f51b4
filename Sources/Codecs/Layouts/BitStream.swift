/// Codes as an LSB-first stream of bits in 32-bit words: code `i` lies in bits `i·b ..< (i + 1)·b`.
/// compressed-tensors, GPTQ, AWQ and MLX all store this stream; they differ in what runs along it.
enum BitStream {
  static func words(_ count: Int, bits: Int) -> Int { (count * bits + 31) / 32 }

  /// - Parameters:
  ///   - codes: `count` codes, `stride` apart.
  ///   - target: where word 0 goes; the words lie `wordStride` words apart.
  static func pack(
    _ codes: UnsafePointer<UInt8>, stride: Int = 1, count: Int, bits: Int,
    into target: UnsafeMutablePointer<UInt32>, wordStride: Int = 1
  ) {
    var pending: UInt64 = 0
    var filled = 0
    var word = 0
    for index in 0..<count {
      pending |= UInt64(codes[index * stride]) << UInt64(filled)
      filled += bits
      guard filled >= 32 else { continue }
      target[word * wordStride] = UInt32(truncatingIfNeeded: pending).littleEndian
      word += 1
      pending >>= 32
      filled -= 32
    }
    if filled > 0 {
      target[word * wordStride] = UInt32(truncatingIfNeeded: pending).littleEndian
    }
  }

  /// The inverse. Words need not be aligned: they may lie in a mapped file.
  static func unpack(
    _ source: UnsafeRawPointer, wordStride: Int = 1, count: Int, bits: Int,
    into codes: UnsafeMutablePointer<UInt8>, stride: Int = 1
  ) {
    let mask = (UInt64(1) << UInt64(bits)) - 1
    var pending: UInt64 = 0
    var filled = 0
    var word = 0
    for index in 0..<count {
      if filled < bits {
        let next = source.loadUnaligned(fromByteOffset: word * wordStride * 4, as: UInt32.self)
        pending |= UInt64(UInt32(littleEndian: next)) << UInt64(filled)
        filled += 32
        word += 1
      }
      codes[index * stride] = UInt8(truncatingIfNeeded: pending & mask)
      pending >>= UInt64(bits)
      filled -= bits
    }
  }
}
