/// Writes numbers of any few bits one after the other, the low bits first.
struct BitWriter {
  private(set) var bytes: [UInt8] = []
  private var pending: UInt64 = 0
  private var count = 0

  /// - Parameter bits: at most 32; the value fits in them.
  mutating func write(_ value: Int, bits: Int) {
    pending |= UInt64(truncatingIfNeeded: value) << UInt64(count)
    count += bits
    while count >= 8 {
      bytes.append(UInt8(truncatingIfNeeded: pending))
      pending >>= 8
      count -= 8
    }
  }

  /// The quotient by 2^parameter in unary, then the remainder (Rice 1979).
  mutating func writeRice(_ value: Int, parameter: Int) {
    var quotient = value >> parameter
    while quotient >= 16 {
      write(0xFFFF, bits: 16)
      quotient -= 16
    }
    write((1 << quotient) - 1, bits: quotient + 1)
    write(value & ((1 << parameter) - 1), bits: parameter)
  }

  /// One of `count` equally likely values, in no more bits than needed.
  mutating func write(_ value: Int, below count: Int) {
    guard count > 1 else { return }
    let code = TruncatedBinary(count)
    if value < code.short {
      write(value, bits: code.bits - 1)
    } else {
      // The deciding bit comes last, after what both lengths share.
      let wide = value + code.short
      write(wide >> 1, bits: code.bits - 1)
      write(wide & 1, bits: 1)
    }
  }

  /// Numbers that rise within a range, the middle one first, so that each narrows what the others can
  /// be (binary interpolative coding, Moffat and Stuiver 2000).
  mutating func writeRising(_ values: ArraySlice<Int32>, in range: ClosedRange<Int>) {
    guard !values.isEmpty else { return }
    let middle = (values.startIndex + values.endIndex) / 2
    let lowest = range.lowerBound + (middle - values.startIndex)
    let highest = range.upperBound - (values.endIndex - 1 - middle)
    let value = Int(values[middle])
    write(value - lowest, below: highest - lowest + 1)
    if middle > values.startIndex {
      writeRising(values[values.startIndex..<middle], in: range.lowerBound...(value - 1))
    }
    if middle + 1 < values.endIndex {
      writeRising(values[(middle + 1)...], in: (value + 1)...range.upperBound)
    }
  }

  mutating func finish() -> [UInt8] {
    if count > 0 { bytes.append(UInt8(truncatingIfNeeded: pending)) }
    (pending, count) = (0, 0)
    return bytes
  }
}

/// Reads what a `BitWriter` wrote. Past the end it reads zeros and says so.
struct BitReader {
  private let bytes: UnsafeRawBufferPointer
  private var next = 0
  private var pending: UInt64 = 0
  private var count = 0
  private(set) var overran = false

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  mutating func read(bits: Int) -> Int {
    while count < bits {
      var byte: UInt8 = 0
      if next < bytes.count { byte = bytes[next] } else { overran = true }
      next += 1
      pending |= UInt64(byte) << UInt64(count)
      count += 8
    }
    let value = pending & ((1 << UInt64(bits)) - 1)
    pending >>= UInt64(bits)
    count -= bits
    return Int(value)
  }

  mutating func readRice(parameter: Int) -> Int {
    var quotient = 0
    while read(bits: 1) == 1 { quotient += 1 }  // ends: past the end come zeros
    return quotient << parameter | read(bits: parameter)
  }

  mutating func read(below count: Int) -> Int {
    guard count > 1 else { return 0 }
    let code = TruncatedBinary(count)
    let value = read(bits: code.bits - 1)
    if value < code.short { return value }
    return (value << 1 | read(bits: 1)) - code.short
  }

  mutating func readRising(
    into target: UnsafeMutableBufferPointer<Int32>, in range: ClosedRange<Int>
  ) {
    guard !target.isEmpty else { return }
    let middle = target.count / 2
    let lowest = range.lowerBound + middle
    let highest = range.upperBound - (target.count - 1 - middle)
    let value = lowest + read(below: highest - lowest + 1)
    target[middle] = Int32(truncatingIfNeeded: value)
    if middle > 0 {
      readRising(
        into: UnsafeMutableBufferPointer(rebasing: target[..<middle]),
        in: range.lowerBound...(value - 1))
    }
    if middle + 1 < target.count {
      readRising(
        into: UnsafeMutableBufferPointer(rebasing: target[(middle + 1)...]),
        in: (value + 1)...range.upperBound)
    }
  }
}

/// The lengths of codes for `count` values: the first `short` take a bit less.
private struct TruncatedBinary {
  let bits: Int
  let short: Int

  init(_ count: Int) {
    bits = Int.bitWidth - (count - 1).leadingZeroBitCount
    short = 1 << bits - count
  }
}
