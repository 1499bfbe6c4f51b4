/// GGUF files made by hand, so that every byte of a damaged one is under control.
struct RawGGUF {
  struct Tensor {
    var name = "a"
    /// Innermost first, as the file has them.
    var sizes: [UInt64] = [2, 2]
    var type: UInt32 = 0
    var offset: UInt64 = 0
  }

  var magic = Array("GGUF".utf8)
  var version: UInt32 = 3
  var tensorCount: UInt64?
  var keyCount: UInt64?
  /// Each with its key, type number and bytes.
  var keys: [(key: String, type: UInt32, value: [UInt8])] = [
    ("general.architecture", 8, Self.string("llama")), ("n", 4, Self.number(7 as UInt32)),
    (
      "list", 9,
      Self.number(5 as UInt32) + Self.number(2 as UInt64) + [1, 0, 0, 0, 255, 255, 255, 255]
    ),
  ]
  var tensors = [Tensor()]
  var alignment = 32
  var data = [UInt8](repeating: 1, count: 16)

  static func number(_ value: some FixedWidthInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }

  static func string(_ text: String, stated: UInt64? = nil) -> [UInt8] {
    number(stated ?? UInt64(text.utf8.count)) + Array(text.utf8)
  }

  var bytes: [UInt8] {
    var bytes = magic + Self.number(version)
    bytes += Self.number(tensorCount ?? UInt64(tensors.count))
    bytes += Self.number(keyCount ?? UInt64(keys.count))
    for entry in keys { bytes += Self.string(entry.key) + Self.number(entry.type) + entry.value }
    for tensor in tensors {
      bytes += Self.string(tensor.name) + Self.number(UInt32(tensor.sizes.count))
      for size in tensor.sizes { bytes += Self.number(size) }
      bytes += Self.number(tensor.type) + Self.number(tensor.offset)
    }
    while bytes.count % alignment != 0 { bytes.append(0) }
    return bytes + data
  }
}
