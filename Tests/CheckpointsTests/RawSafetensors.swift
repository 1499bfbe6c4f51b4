import Foundation
import TestSupport
import Testing

/// Safetensors files made by hand, so that every byte of a damaged one is under control.
struct RawSafetensors {
  var header: String
  var data: [UInt8]
  /// What the first eight bytes say; the header's true length unless set.
  var statedLength: UInt64?

  init(_ header: String, data: [UInt8] = [], statedLength: UInt64? = nil) {
    self.header = header
    self.data = data
    self.statedLength = statedLength
  }

  var bytes: [UInt8] {
    let length = statedLength ?? UInt64(header.utf8.count)
    return withUnsafeBytes(of: length.littleEndian) { Array($0) } + Array(header.utf8) + data
  }

  /// Two small tensors: `a`, float32 [2, 2], and `b`, uint8 [3].
  static let valid = RawSafetensors(
    #"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"#
      + #""b":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}}"#,
    data: [0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64, 7, 8, 9])
}

/// Foundation's writing waits for the disk, which a thousand small files would make felt.
func write(_ bytes: [UInt8], to path: String) throws {
  let file = try #require(fopen(path, "w"))
  let count = fwrite(bytes, 1, bytes.count, file)
  #expect(fclose(file) == 0 && count == bytes.count)
}

func write(_ text: String, to path: String) throws { try write(Array(text.utf8), to: path) }

func exists(_ path: String) -> Bool {
  var isFolder: ObjCBool = false
  return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
}

func names(in folder: String) throws -> [String] {
  try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
}

/// SplitMix64: the same numbers for the same seed on every machine.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
