import Foundation
import TestSupport
import Testing
import Training

/// RFC 3720, appendix B.4, and the check value of the algorithm's catalogue entry.
@Test func checksumsAreThoseOfTheStandard() {
  let command: [UInt8] =
    [0x01, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0]
    + [0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0]
  let vectors: [([UInt8], UInt32)] = [
    ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
    ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
    (Array(0..<32), 0x46DD_794E), (Array((0..<32).reversed()), 0x113F_DB5C),
    (command, 0xD996_3A56), (Array("123456789".utf8), 0xE306_9283), ([], 0),
  ]
  for (bytes, sum) in vectors { #expect(CRC32C.checksum(bytes) == sum) }
}

private struct Frame {
  var message: ArraySlice<UInt8>
}

/// Reads frames by the definition of TFRecord, checking both sums.
private func frames(_ bytes: [UInt8]) throws -> [Frame] {
  func number(_ range: Range<Int>) -> UInt64 {
    bytes[range].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
  func sum(_ range: Range<Int>) -> UInt64 {
    let crc = CRC32C.checksum(bytes[range])
    let rotated = UInt64(crc) << 32 | UInt64(crc)
    return ((rotated >> 15 & 0xFFFF_FFFF) + 0xA282_EAD8) & 0xFFFF_FFFF
  }
  var frames: [Frame] = []
  var start = 0
  while start < bytes.count {
    let length = Int(number(start..<(start + 8)))
    try #require(start + 16 + length <= bytes.count)
    #expect(number((start + 8)..<(start + 12)) == sum(start..<(start + 8)))
    let message = (start + 12)..<(start + 12 + length)
    #expect(number(message.upperBound..<(message.upperBound + 4)) == sum(message))
    frames.append(Frame(message: bytes[message]))
    start = message.upperBound + 4
  }
  return frames
}

/// A protocol buffer's fields; nested ones stay bytes.
private func fields(_ bytes: ArraySlice<UInt8>) throws -> [(field: Int, value: [UInt8])] {
  var rest = bytes
  func varint() throws -> UInt64 {
    var value: UInt64 = 0, shift: UInt64 = 0
    while true {
      let next = rest.popFirst()
      let byte = try #require(next)
      value |= UInt64(byte & 0x7F) << shift
      shift += 7
      if byte < 0x80 { return value }
    }
  }
  var result: [(field: Int, value: [UInt8])] = []
  while !rest.isEmpty {
    let key = try varint()
    var value: [UInt8]
    switch key & 7 {
    case 0: value = withUnsafeBytes(of: try varint().littleEndian) { Array($0) }
    case 1: value = Array(rest.prefix(8))
    case 2:
      let count = Int(try varint())
      value = Array(rest.prefix(count))
    default: value = Array(rest.prefix(4))
    }
    if key & 7 != 0 { rest = rest.dropFirst(value.count) }
    result.append((Int(key >> 3), value))
  }
  return result
}

private func bits<T: FixedWidthInteger>(_ bytes: [UInt8], as type: T.Type) -> T {
  bytes.reversed().reduce(0) { $0 << 8 | T(truncatingIfNeeded: $1) }
}

@Test func eventFilesHoldEveryScalarInItsFrame() throws {
  try withTemporaryDirectory { folder in
    let log = try TensorBoardLog(directory: "\(folder)/board", wallTime: { 1_700_000_000.5 })
    #expect(log.path.hasSuffix("/board/events.out.tfevents.1700000000.pare"))
    try log.append(
      TrainingMetrics(
        step: 300, tokens: 7, loss: 1.25, others: [.init("held_out_loss", .infinity)]))
    try log.append(step: -1, [])
    let read = try frames([UInt8](Data(contentsOf: URL(filePath: log.path))))
    try #require(read.count == 3)
    let version = try fields(read[0].message)
    #expect(version.map(\.field) == [1, 3])
    #expect(Double(bitPattern: bits(version[0].value, as: UInt64.self)) == 1_700_000_000.5)
    #expect(version[1].value == Array("brain.Event:2".utf8))

    let event = try fields(read[1].message)
    #expect(event.map(\.field) == [1, 2, 5])
    #expect(bits(event[1].value, as: Int64.self) == 300)
    let values = try fields(event[2].value[...]).map { try fields($0.value[...]) }
    #expect(
      values.map { String(decoding: $0[0].value, as: UTF8.self) }
        == ["tokens", "loss", "held_out_loss"])
    #expect(
      values.map { Float(bitPattern: bits($0[1].value, as: UInt32.self)) }
        == [7, 1.25, .infinity])
    #expect(bits(try fields(read[2].message)[1].value, as: Int64.self) == -1)
  }
}

@Test func aResumedLogVoidsTheStepsThatComeAgain() throws {
  try withTemporaryDirectory { folder in
    let first = try TensorBoardLog(directory: folder, wallTime: { 50 })
    let second = try TensorBoardLog(directory: folder, resumingAfter: 7, wallTime: { 50 })
    // Read in the order of their names.
    #expect(first.path < second.path)
    let read = try frames([UInt8](Data(contentsOf: URL(filePath: second.path))))
    let restart = try fields(read[1].message)
    #expect(restart.map(\.field) == [1, 2, 7])
    #expect(bits(restart[1].value, as: Int64.self) == 8)
    #expect(restart[2].value == [8, 1])
  }
}

private let folderForOtherReaders =
  ProcessInfo.processInfo.environment["PARE_WATCHING_FOLDER"]

/// Writes what Scripts/parity_tensorboard.py reads: a run that was killed at step 12, after the
/// checkpoint of step 8, and resumed from there.
@Test(.enabled(if: folderForOtherReaders != nil, "set PARE_WATCHING_FOLDER"))
func logsForOtherReaders() throws {
  let folder = try #require(folderForOtherReaders)
  for (steps, resumed) in [(1...12, nil), (9...30, 8)] as [(ClosedRange<Int>, Int?)] {
    let log = try MetricsLog("\(folder)/metrics.jsonl", resumingAfter: resumed)
    let board = try TensorBoardLog(directory: folder, resumingAfter: resumed)
    for step in steps {
      let metrics = TrainingMetrics(
        step: step, tokens: step * 2048, loss: step == 20 ? .nan : 8 / Double(step + steps.count),
        learningRate: 3e-4 / Double(step), residentBytes: 123_456_789,
        others: step % 5 == 0 ? [.init("held_out_loss", 7 / Double(step))] : [])
      try log.append(metrics)
      try board.append(metrics)
    }
  }
  let curve = LossCurve(
    title: "sample", metrics: try MetricsLog.read("\(folder)/metrics.jsonl"))
  try curve.svg().write(toFile: "\(folder)/loss.svg", atomically: false, encoding: .utf8)
}
