/// The bytes of TensorBoard's event files: TFRecord frames around protocol buffers, of which the few
/// needed fields are written by hand.
///
/// ```
/// frame    length: UInt64, masked CRC32C of the length, message, masked CRC32C of the message
/// Event    1 wall_time: double, 2 step: int64, 3 file_version: string, 5 summary: Summary,
///          7 session_log: SessionLog
/// Summary  1 value: repeated { 1 tag: string, 2 simple_value: float }
/// SessionLog  1 status: enum, START = 1
/// ```
package enum EventRecord {
  /// Must be the first of a file.
  package static func version(wallTime: Double) -> [UInt8] {
    framed(double(1, wallTime) + bytes(3, Array("brain.Event:2".utf8)))
  }

  /// Says that all earlier events of this step and later ones are void.
  package static func restart(step: Int, wallTime: Double) -> [UInt8] {
    framed(double(1, wallTime) + integer(2, step) + bytes(7, integer(1, 1)))
  }

  package static func scalars(
    _ scalars: [(tag: String, value: Double)], step: Int, wallTime: Double
  ) -> [UInt8] {
    let values = scalars.flatMap { scalar in
      bytes(1, bytes(1, Array(scalar.tag.utf8)) + float(2, Float(scalar.value)))
    }
    return framed(double(1, wallTime) + integer(2, step) + bytes(5, values))
  }

  package static func framed(_ message: [UInt8]) -> [UInt8] {
    let length = littleEndian(UInt64(message.count))
    return length + littleEndian(CRC32C.masked(length))
      + message + littleEndian(CRC32C.masked(message))
  }

  // MARK: Fields: a key (number and wire type), then the value

  private static func integer(_ field: Int, _ value: Int) -> [UInt8] {
    varint(UInt64(field) << 3) + varint(UInt64(bitPattern: Int64(value)))
  }

  private static func double(_ field: Int, _ value: Double) -> [UInt8] {
    varint(UInt64(field) << 3 | 1) + littleEndian(value.bitPattern)
  }

  private static func bytes(_ field: Int, _ value: [UInt8]) -> [UInt8] {
    varint(UInt64(field) << 3 | 2) + varint(UInt64(value.count)) + value
  }

  private static func float(_ field: Int, _ value: Float) -> [UInt8] {
    varint(UInt64(field) << 3 | 5) + littleEndian(value.bitPattern)
  }

  /// Seven bits a byte, the lowest first; the highest bit says that more follow.
  private static func varint(_ value: UInt64) -> [UInt8] {
    var rest = value
    var result: [UInt8] = []
    while rest >= 0x80 {
      result.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    return result + [UInt8(rest)]
  }

  private static func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }
}
