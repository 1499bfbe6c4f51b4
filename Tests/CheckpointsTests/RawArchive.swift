import Checkpoints

/// Zip archives made by hand, as `torch.save` lays them out.
struct RawArchive {
  var entries: [(name: String, data: [UInt8])]
  /// Whether sizes and offsets are written in the 64-bit records.
  var isZip64 = false
  /// 0 is stored; anything else claims compression.
  var method: UInt16 = 0

  /// An archive around a pickle and storages of these bytes.
  init(pickle: [UInt8], storages: [[UInt8]] = []) {
    entries = [("archive/data.pkl", pickle)]
    for (key, data) in storages.enumerated() { entries.append(("archive/data/\(key)", data)) }
  }

  var bytes: [UInt8] {
    var file: [UInt8] = []
    var directory: [UInt8] = []
    for (name, data) in entries {
      let crc = data.withUnsafeBytes { CRC32.of($0) }
      let size = isZip64 ? UInt32.max : UInt32(data.count)
      let offset = UInt64(file.count)
      file += little(UInt32(0x0403_4b50)) + little(UInt16(45)) + little(UInt16(0))
      file += little(method) + little(UInt32(0)) + little(crc)
      file += little(UInt32(data.count)) + little(UInt32(data.count))
      file += little(UInt16(name.utf8.count)) + little(UInt16(0)) + Array(name.utf8) + data

      let wide: [UInt8] =
        isZip64
        ? little(UInt16(1)) + little(UInt16(24)) + little(UInt64(data.count))
          + little(UInt64(data.count)) + little(offset) : []
      directory += little(UInt32(0x0201_4b50)) + little(UInt16(45)) + little(UInt16(45))
      directory += little(UInt16(0)) + little(method) + little(UInt32(0)) + little(crc)
      directory += little(size) + little(size) + little(UInt16(name.utf8.count))
      directory += little(UInt16(wide.count)) + little(UInt16(0)) + little(UInt16(0))
      directory += little(UInt16(0)) + little(UInt32(0))
      directory += little(isZip64 ? UInt32.max : UInt32(offset)) + Array(name.utf8) + wide
    }
    let start = UInt64(file.count)
    file += directory
    if isZip64 {
      let record = UInt64(file.count)
      file += little(UInt32(0x0606_4b50)) + little(UInt64(44)) + little(UInt32(0x2d002d))
      file += little(UInt32(0)) + little(UInt32(0)) + little(UInt64(entries.count))
      file += little(UInt64(entries.count)) + little(UInt64(directory.count)) + little(start)
      file += little(UInt32(0x0706_4b50)) + little(UInt32(0)) + little(record) + little(UInt32(1))
    }
    file += little(UInt32(0x0605_4b50)) + little(UInt32(0))
    let count = isZip64 ? UInt16.max : UInt16(entries.count)
    file += little(count) + little(count)
    file += little(isZip64 ? UInt32.max : UInt32(directory.count))
    file += little(isZip64 ? UInt32.max : UInt32(start)) + little(UInt16(0))
    return file
  }

  private func little<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    withUnsafeBytes(of: number.littleEndian) { Array($0) }
  }
}

/// Writes pickles, instruction by instruction.
struct RawPickle {
  private(set) var bytes: [UInt8] = [0x80, 2]

  static func table(_ pairs: [(String, RawPickle)]) -> RawPickle {
    var pickle = RawPickle().op("}").op("(")
    for (name, value) in pairs { pickle = pickle.string(name).append(value) }
    return pickle.op("u").op(".")
  }

  /// A float32 view of storage 0, which states `count` elements.
  static func tensor(
    count: Int, offset: Int = 0, shape: [Int], strides: [Int], key: String = "0",
    storage: String = "torch\nFloatStorage\n"
  ) -> RawPickle {
    RawPickle().global("torch._utils\n_rebuild_tensor_v2\n").op("(")
      .op("(").string("storage").global(storage).string(key).string("cpu").integer(count)
      .op("t").op("Q").integer(offset).tuple(shape).tuple(strides)
      .op("\u{89}").global("collections\nOrderedDict\n").op(")").op("R").op("t").op("R")
  }

  func op(_ character: Unicode.Scalar) -> RawPickle { raw([UInt8(character.value)]) }
  func raw(_ more: [UInt8]) -> RawPickle {
    var copy = self
    copy.bytes += more
    return copy
  }
  /// Another's instructions, without its protocol mark.
  func append(_ other: RawPickle) -> RawPickle { raw(Array(other.bytes.dropFirst(2))) }
  func global(_ lines: String) -> RawPickle { op("c").raw(Array(lines.utf8)) }
  func string(_ text: String) -> RawPickle {
    op("X").raw(withUnsafeBytes(of: UInt32(text.utf8.count).littleEndian) { Array($0) })
      .raw(Array(text.utf8))
  }
  func integer(_ value: Int) -> RawPickle {
    raw([0x8a, 8]).raw(withUnsafeBytes(of: value.littleEndian) { Array($0) })
  }
  func tuple(_ values: [Int]) -> RawPickle {
    values.reduce(op("(")) { $0.integer($1) }.op("t")
  }
}
