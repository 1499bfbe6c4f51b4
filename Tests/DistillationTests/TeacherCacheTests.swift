import Checkpoints
import Distillation
import Evaluation
import Foundation
import Models
import Synchronization
import Tensors
import TestSupport
import Testing
import Tokenizers
import Training

struct TeacherCacheTests {
  private static let limit = 1 << 30

  private func write(
    _ path: String, _ teacher: LanguageModel, _ stream: TrainingStream, k: Int = 10,
    batches: Int? = nil
  ) throws {
    try TeacherCache.write(
      to: path, teacher: teacher, stream: stream, batches: batches,
      settings: .init(k: k, memoryLimit: Self.limit))
  }

  private func open(_ path: String, _ teacher: LanguageModel, _ stream: TrainingStream) throws
    -> CachedTeacher
  {
    try CachedTeacher(
      try CacheFile(path: path), expected: try CacheIdentity(teacher: teacher, stream: stream))
  }

  /// Every prediction of every batch, in any order of asking, against the model itself.
  @Test(arguments: [TrainingStream.Mode.packed, .whole, .padded, .stream])
  func theCacheSaysWhatTheTeacherSays(_ mode: TrainingStream.Mode) throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let stream = try CacheFixture.stream(folder, mode: mode)
      let path = "\(folder)/cache"
      try write(path, teacher, stream)
      let cached = try open(path, teacher, stream)
      let live = ModelTeacher(teacher)
      for batch in try CacheFixture.batches(stream) {
        _ = try cached.begin(batch, wanting: .none)
        _ = try live.begin(batch, wanting: .none)
        let places = Array(batch.wantedRows.reversed())
        guard !places.isEmpty, case .logits(let logits) = try live.rows(places),
          case .top(let top) = try cached.rows(places)
        else { continue }
        #expect(top.k == 10 && top.rows == places.count)
        for row in places.indices {
          let truth = CacheFixture.logProbabilities(logits, row)
          let best = truth.indices.sorted { truth[$0] > truth[$1] }.prefix(10)
          let kept = (row * 10)..<(row * 10 + 10)
          #expect(Set(top.ids[kept].map(Int.init)) == Set(best))
          for place in kept {
            #expect(abs(Double(top.logProbabilities[place]) - truth[Int(top.ids[place])]) < 0.12)
          }
        }
      }
    }
  }

  @Test func batchesOfAnotherSizeFindTheirTextsToo() throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let path = "\(folder)/cache"
      try write(path, teacher, try CacheFixture.stream(folder, rows: 2))
      let stream = try CacheFixture.stream(folder, rows: 5)
      let cached = try open(path, teacher, stream)
      for batch in try CacheFixture.batches(stream) { _ = try cached.begin(batch, wanting: .none) }
    }
  }

  @Test func writingTwiceGivesTheSameBytesForAnyMemory() throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let stream = try CacheFixture.stream(folder)
      let least = BlockMajorPass.overheadBytes + BlockMajorPass.weightBytes(teacher)
      for (index, memory) in [Self.limit, least + 60_000].enumerated() {
        try TeacherCache.write(
          to: "\(folder)/\(index)", teacher: teacher, stream: stream, batches: nil,
          settings: .init(k: 5, memoryLimit: memory))
      }
      let files = try (0..<2).map { try Data(contentsOf: URL(filePath: "\(folder)/\($0)")) }
      #expect(files[0] == files[1])
    }
  }

  @Test func aCacheOfAnotherTeacherDataOrSettingIsRefused() throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let stream = try CacheFixture.stream(folder)
      let path = "\(folder)/cache"
      try write(path, teacher, stream)
      func refusal(_ teacher: LanguageModel, _ stream: TrainingStream) -> String {
        CacheFixture.message { _ = try open(path, teacher, stream) }
      }
      #expect(refusal(teacher, stream) == "no error")
      let other = try CacheFixture.model(folder, seed: 2)
      #expect(refusal(other, stream).contains("with another teacher"))
      #expect(
        refusal(teacher, try CacheFixture.stream(folder, documents: 29)).contains("another data"))
      let others = [
        try CacheFixture.stream(folder, length: 8), try CacheFixture.stream(folder, seed: 8),
        try CacheFixture.stream(folder, mode: .padded),
      ]
      for stream in others {
        #expect(refusal(teacher, stream).contains("with another settings"))
      }
    }
  }

  @Test func aTextThatTheTeacherHasNotSeenIsRefused() throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let stream = try CacheFixture.stream(folder)
      let path = "\(folder)/cache"
      try write(path, teacher, stream, batches: 2)
      let cached = try open(path, teacher, stream)
      let batches = try CacheFixture.batches(stream)
      _ = try cached.begin(batches[1], wanting: .none)
      #expect(
        CacheFixture.message { _ = try cached.begin(batches[2], wanting: .none) }
          == "\(path) has no predictions for a text of this batch. "
          + "Make it again for as many batches as the run has, with the same tokenizer.")
      #expect(throws: DistillationError.self) { try cached.begin(batches[0], wanting: .states) }
    }
  }

  @Test func damagedCachesAreRefusedAndNeverReadWrong() throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let stream = try CacheFixture.stream(folder)
      let path = "\(folder)/cache"
      try write(path, teacher, stream)
      let whole = [UInt8](try Data(contentsOf: URL(filePath: path)))
      let batches = try CacheFixture.batches(stream)
      func result(_ bytes: [UInt8]) throws -> [Int32]? {
        let copy = "\(folder)/copy"
        try Data(bytes).write(to: URL(filePath: copy))
        do {
          let cached = try open(copy, teacher, stream)
          var ids: [Int32] = []
          for batch in batches {
            _ = try cached.begin(batch, wanting: .none)
            if case .top(let top) = try cached.rows(batch.wantedRows) { ids += top.ids }
          }
          return ids
        } catch is DistillationError {
          return nil
        }
      }
      let truth = try result(whole)
      #expect(truth != nil)
      for count in [0, 7, 40, whole.count / 2, whole.count - 1] {
        #expect(try result(Array(whole.prefix(count))) == nil)
      }
      var random = Xoshiro256(seed: 3)
      for _ in 0..<100 {
        var bytes = whole
        bytes[Int.random(in: 0..<whole.count, using: &random)] ^=
          1
          << UInt8.random(
            in: 0..<8, using: &random)
        let read = try result(bytes)
        #expect(read == nil || read == truth)
      }
    }
  }

  @Test func anUnfinishedCacheHasNoName() throws {
    struct Stop: Error {}
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      #expect(throws: Stop.self) {
        try TeacherCache.write(
          to: "\(folder)/cache", teacher: teacher, stream: try CacheFixture.stream(folder),
          batches: nil, settings: .init(k: 5, memoryLimit: Self.limit),
          onProgress: { _ in throw Stop() })
      }
      let names = try FileManager.default.contentsOfDirectory(atPath: folder)
      #expect(!names.contains { $0.contains("cache") })
    }
  }

  /// With every token kept, the buckets are the vocabulary; with fewer, merging can only hide.
  @Test func topDivergenceIsALowerBoundThatAllTokensReach() throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let student = try CacheFixture.model(folder, seed: 2)
      let stream = try CacheFixture.stream(folder)
      var exact: [Double] = []
      for batch in try CacheFixture.batches(stream) {
        let (a, b) = (ModelTeacher(teacher), ModelTeacher(student))
        _ = (try a.begin(batch, wanting: .none), try b.begin(batch, wanting: .none))
        guard case .logits(let p) = try a.rows(batch.wantedRows),
          case .logits(let q) = try b.rows(batch.wantedRows)
        else { continue }
        for row in 0..<p.rows {
          let (p, q) = (
            CacheFixture.logProbabilities(p, row), CacheFixture.logProbabilities(q, row)
          )
          exact.append(zip(p, q).reduce(0) { $0 + exp($1.0) * ($1.0 - $1.1) })
        }
      }
      for k in [4, 20, CacheFixture.vocabulary] {
        try write("\(folder)/\(k)", teacher, stream, k: k)
        let cached = try open("\(folder)/\(k)", teacher, stream)
        let measured = try TopDivergence.measure(student, teacher: cached, stream: stream)
        #expect(measured.protocolName.hasPrefix("kl_topk (k = \(k)), packed rows of 16 tokens"))
        #expect(measured.tokens == exact.count)
        if k == CacheFixture.vocabulary {
          for (a, b) in zip(measured.tokenKLs, exact) { #expect(abs(a - b) < 0.01 * (1 + b)) }
        } else {
          #expect(measured.mean < Statistics.mean(exact))
        }
        let itself = try TopDivergence.measure(teacher, teacher: cached, stream: stream)
        #expect(itself.mean < 2e-4)
      }
    }
  }
}

extension TeacherCacheTests {
  /// A trained model's predictions: what a row takes, and how far what is read is from what was said.
  @Test(arguments: [32, 128]) func aTrainedModelsRowsAreSmallAndTrue(_ k: Int) throws {
    let resources = SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources")
    let folder = resources.appending(path: "stories").path
    let teacher = try LanguageModel.load(folder)
    let json = try Data(contentsOf: URL(filePath: "\(folder)/tokenizer.json"))
    let tokenizer = try Tokenizer(json: .parse([UInt8](json), name: "tokenizer.json"))
    try withTemporaryDirectory { target in
      let data = try TrainingData(
        [DataSource(path: resources.appending(path: "held-out.txt").path, format: .text)], seed: 1)
      let encoder = try ExampleEncoder(tokenizer: tokenizer, endTokens: [])
      let stream = try TrainingStream(
        data, encoder: encoder, options: .init(rows: 4, length: 128, passes: 1))
      try write("\(target)/cache", teacher, stream, k: k, batches: 3)
      let cached = try open("\(target)/cache", teacher, stream)
      let itself = try TopDivergence.measure(
        teacher, teacher: cached, stream: stream, batches: 3)
      print(
        "k \(k): \(cached.file.bytesPerRow) bytes a row, KL to what is read \(itself.mean) nats, "
          + "largest \(itself.tokenKLs.max() ?? 0)")
      #expect(cached.file.bytesPerRow < (k == 32 ? 70 : 230))
      #expect(itself.mean < 1e-4 && itself.tokenKLs.allSatisfy { $0 < 2e-3 })
    }
  }
}

// MARK: - Memory

/// Knows which matrices were touched and not given back.
private final class Touched: Sendable {
  private let state = Mutex<(live: [Int: Int], peak: Int)>(([:], 0))
  var peak: Int { state.withLock { $0.peak } }

  func touch(_ number: Int, bytes: Int) {
    state.withLock {
      $0.live[number] = bytes
      $0.peak = max($0.peak, $0.live.values.reduce(0, +))
    }
  }
  func giveBack(_ number: Int) { state.withLock { $0.live[number] = nil } }
}

private struct CountedWeight: Weight {
  let base: any Weight
  let number: Int
  let touched: Touched
  var outputs: Int { base.outputs }
  var inputs: Int { base.inputs }
  var storedBytes: Int { base.storedBytes }

  func multiply(_ x: Tensor) -> Tensor {
    touched.touch(number, bytes: storedBytes)
    return base.multiply(x)
  }
  func rows(at ids: [Int]) -> Tensor {
    touched.touch(number, bytes: storedBytes)
    return base.rows(at: ids)
  }
  func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    base.dequantizeRows(range, into: target)
  }
  func giveBack() {
    touched.giveBack(number)
    base.giveBack()
  }
}

struct BlockMajorPassTests {
  private static let folder = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures")
  static let models = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []

  /// Every architecture: windows, learned positions, ALiBi, parallel branches.
  @Test(arguments: models.filter { !$0.hasPrefix(".") }.sorted())
  func blockByBlockIsBitForBitTheWholePass(_ name: String) throws {
    let model = try LanguageModel.load(Self.folder.appending(path: name).path)
    let vocabulary = model.configuration.vocabularySize
    let length = min(12, model.configuration.contextLength ?? 12)
    let batches = (0..<3).map { batch in
      BlockMajorPass.Batch(
        tokens: (0..<2 * length).map { ($0 * 7 + batch) % vocabulary },
        segments: [0..<length, length..<(2 * length)], wanted: [0, 3, 2 * length - 1])
    }
    let pass = try BlockMajorPass(model, batchTokens: 2 * length, memoryLimit: 1 << 30)
    var seen = 0
    try pass.run(batches) { number, places, logits in
      let hidden = try model.hidden(
        tokens: batches[number].tokens, segments: batches[number].segments)
      let expected = model.logits(hidden.rows(at: Array(places)))
      #expect(expected.array == logits.array)
      seen += places.count
    }
    #expect(seen == 9)
  }

  @Test func onlyOneBlocksWeightsAreResidentAtATime() throws {
    try withTemporaryDirectory { folder in
      let model = try CacheFixture.model(folder, CacheFixture.config(layers: 6))
      let touched = Touched()
      var number = 0
      let counted = try model.mapped(matrix: { _, weight in
        number += 1
        return CountedWeight(base: weight, number: number, touched: touched)
      })
      let pass = try BlockMajorPass(counted, batchTokens: 16, memoryLimit: 1 << 30)
      let batch = BlockMajorPass.Batch(
        tokens: Array(0..<16), segments: [0..<16], wanted: Array(0..<16))
      try pass.run([batch, batch, batch]) { _, _, _ in }
      #expect(touched.peak == BlockMajorPass.weightBytes(counted))
      let all = counted.blocks.flatMap(\.linears).reduce(0) { $0 + $1.weight.storedBytes }
      #expect(touched.peak < all / 3)
    }
  }

  @Test func aLimitThatNoBatchFitsIsRefusedWithTheSizeThatWouldDo() throws {
    try withTemporaryDirectory { folder in
      let model = try CacheFixture.model(folder)
      let message = CacheFixture.message {
        _ = try BlockMajorPass(model, batchTokens: 1024, memoryLimit: 1 << 20)
      }
      #expect(message.hasPrefix("the memory for the teacher is 1048576 bytes, which must be at"))
    }
  }

  /// A real model larger than the limit: `PARE_LARGE_MODEL=FOLDER`, at least three times the limit.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["PARE_LARGE_MODEL"] != nil))
  func residentMemoryStaysBelowTheLimit() throws {
    let path = ProcessInfo.processInfo.environment["PARE_LARGE_MODEL"] ?? ""
    let model = try LanguageModel.load(path)
    let stored = model.blocks.flatMap(\.linears).reduce(model.head.storedBytes) {
      $0 + $1.weight.storedBytes
    }
    let limit = stored / 3
    let vocabulary = model.configuration.vocabularySize
    let batches = (0..<4).map { batch in
      BlockMajorPass.Batch(
        tokens: (0..<128).map { ($0 * 31 + batch) % vocabulary }, segments: [0..<128],
        wanted: Array(0..<127))
    }
    let pass = try BlockMajorPass(model, batchTokens: 128, memoryLimit: limit)
    #expect(pass.groupTokens >= 4 * 128)
    try pass.run(batches) { _, _, _ in }
    let peak = ProcessMemory.peakResidentBytes ?? 0
    print("stored \(stored), limit \(limit), peak \(peak)")
    #expect(peak < limit)
  }
}
