import Checkpoints
import Foundation
import TestSupport
import Testing
import Text
import Training

private func metrics(_ step: Int) -> TrainingMetrics {
  TrainingMetrics(
    step: step, tokens: step * 2048, loss: 8 / Double(step), learningRate: 3e-4,
    gradientNorm: 0.1 * Double(step), tokensPerSecond: 1234.5, seconds: Double(step) * 1.5,
    residentBytes: 1 << 30, others: step % 2 == 0 ? [.init("held_out_loss", 2.5)] : [])
}

private func text(_ path: String) throws -> String {
  String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
}

@Test func aLineHoldsEveryFigureUnderItsName() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/metrics.jsonl"
    let log = try MetricsLog(path)
    try log.append(metrics(2))
    try log.append(TrainingMetrics(step: 3, tokens: 9, loss: .nan))
    #expect(
      try text(path) == """
        {"step":2,"tokens":4096,"loss":4.0,"learning_rate":0.0003,"gradient_norm":0.2,\
        "tokens_per_second":1234.5,"seconds":3.0,"resident_bytes":1073741824,"held_out_loss":2.5}
        {"step":3,"tokens":9,"loss":null}

        """)
    let read = try MetricsLog.read(path)
    #expect(read[0] == metrics(2))
    #expect(read[1].step == 3 && read[1].loss.isNaN)
  }
}

@Test(arguments: [0, 1, 3, 4, 5, 6, 100])
func resumingRemovesLaterSteps(step: Int) throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/metrics.jsonl"
    // Kept in two runs: lines need not have every step.
    for number in [1, 2, 4, 5] { try MetricsLog(path, resumingAfter: 100).append(metrics(number)) }
    let log = try MetricsLog(path, resumingAfter: step)
    let kept = [1, 2, 4, 5].filter { $0 <= step }
    #expect(try MetricsLog.read(path) == kept.map(metrics))
    try log.append(metrics(max(step, 5) + 1))
    #expect(try MetricsLog.read(path).map(\.step) == kept + [max(step, 5) + 1])
  }
}

/// What a kill in the middle of a write may leave.
@Test func aTornLastLineIsRemovedWhereverItWasCut() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/metrics.jsonl"
    let lines: [[UInt8]] = [1, 2, 3].map { metrics($0).json.serialized() + [10] }
    let whole = lines[0] + lines[1] + lines[2]
    let lastStart = lines[0].count + lines[1].count
    for cut in lastStart..<whole.count {
      try Data(whole[..<cut]).write(to: URL(filePath: path))
      #expect(try MetricsLog.read(path).map(\.step) == [1, 2])
      try MetricsLog(path, resumingAfter: 3).append(metrics(3))
      #expect([UInt8](try Data(contentsOf: URL(filePath: path))) == whole)
    }
  }
}

@Test func aNewLogReplacesTheFormerOne() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/metrics.jsonl"
    try MetricsLog(path).append(metrics(1))
    try MetricsLog(path).append(metrics(7))
    #expect(try MetricsLog.read(path).map(\.step) == [7])
    // Resuming without a log begins one.
    try FileManager.default.removeItem(atPath: path)
    try MetricsLog(path, resumingAfter: 5).append(metrics(6))
    #expect(try MetricsLog.read(path).map(\.step) == [6])
  }
}

@Test(arguments: [
  "not json\n", "{}\n", "[1]\n", "{\"step\":1}\n\n", "{\"step\":\"1\"}\n",
  "{\"step\":2}\n{\"step\":2}\n", "{\"step\":2}\n{\"step\":1}\n", "{\"step\":1,\"loss\":\"x\"}\n",
])
func whatIsNoLogIsRefusedAndLeftAlone(content: String) throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/metrics.jsonl"
    try content.write(toFile: path, atomically: false, encoding: .utf8)
    #expect(throws: TrainingError.self) { try MetricsLog(path, resumingAfter: 9) }
    #expect(try text(path) == content)
  }
}

@Test func pathsThatCannotBeWrittenAreNamed() throws {
  #expect(throws: CheckpointError.self) { try MetricsLog("/nowhere/at/all.jsonl") }
  #expect(throws: CheckpointError.self) { try MetricsLog.read("/nowhere/at/all.jsonl") }
  #expect(throws: CheckpointError.self) { try TensorBoardLog(directory: "/nowhere/at/all") }
  if FileManager.default.fileExists(atPath: "/dev/full") {
    let log = try MetricsLog("/dev/full")
    #expect(throws: CheckpointError.diskFull(file: "/dev/full")) { try log.append(metrics(1)) }
  }
}
