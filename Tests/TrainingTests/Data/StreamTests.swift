import Tensors
import TestSupport
import Testing
import Text
import Training

/// Laws of batches, for documents shorter and longer than a row.
struct StreamTests {
  private static let separator = "<|endoftext|>"

  private func withData<R>(
    _ count: Int = 57, longest: Int = 60, heldOut: HeldOut = .none, repeats: Int = 1,
    partBytes: Int = 1 << 16, _ body: (TrainingData, ExampleEncoder) throws -> R
  ) throws -> R {
    try withTemporaryDirectory { folder in
      let texts = randomDocuments(count, longest: longest, seed: 5)
      let file = try ToyFile(folder, texts.joined(separator: Self.separator))
      let data = try file.data(heldOut: heldOut, seed: 3, repeats: repeats, partBytes: partBytes)
      return try body(data, ToyTokenizer.encoder())
    }
  }

  private func batches(
    _ data: TrainingData, _ encoder: ExampleEncoder, _ options: TrainingStream.Options
  ) throws -> [TrainingBatch] {
    var stream = try TrainingStream(data, encoder: encoder, options: options)
    var batches: [TrainingBatch] = []
    while let batch = try stream.next() { batches.append(batch) }
    return batches
  }

  /// How often each prediction of a token from the one before it is wanted.
  private func pairs(_ examples: [TrainingExample]) -> [[Int]: Int] {
    examples.reduce(into: [:]) { pairs, example in
      for (input, target) in zip(example.tokens, example.tokens.dropFirst()) {
        pairs[[input, target], default: 0] += 1
      }
    }
  }

  @Test(
    arguments: [TrainingStream.Mode.packed, .whole, .padded, .stream], [(3, 16), (2, 7), (1, 100)])
  func everyTokenButTheFirstIsATargetOncePerEpoch(
    _ mode: TrainingStream.Mode, _ shape: (rows: Int, length: Int)
  ) throws {
    try withData(repeats: 2, partBytes: 40) { data, encoder in
      let examples = try data.order(.training, epoch: 0, isShuffled: false).map {
        try encoder.encode(data.content(Int($0)))
      }
      let batches = try batches(
        data, encoder,
        .init(rows: shape.rows, length: shape.length, mode: mode, passes: 1))
      var seen: [[Int]: Int] = [:]
      for batch in batches {
        #expect(batch.inputs.count == shape.rows * shape.length)
        for index in batch.inputs.indices where batch.weights[index] != 0 {
          seen[[batch.inputs[index], batch.targets[index]], default: 0] += 1
        }
      }
      #expect(seen == pairs(examples))
    }
  }

  @Test(arguments: TrainingStream.Mode.allCases)
  func segmentsCoverEveryRowAndNoTargetLeavesItsSegment(_ mode: TrainingStream.Mode) throws {
    try withData { data, encoder in
      var stream = try TrainingStream(
        data, encoder: encoder, options: .init(rows: 4, length: 24, mode: mode))
      for _ in 0..<30 {
        let batch = try #require(try stream.next())
        #expect(batch.segments.flatMap { $0 } == Array(batch.inputs.indices))
        for segment in batch.segments {
          #expect(!segment.isEmpty && segment.lowerBound / 24 == (segment.upperBound - 1) / 24)
          for index in segment.dropLast() where batch.weights[index] != 0 {
            #expect(batch.targets[index] == batch.inputs[index + 1])
          }
        }
        // A document's end is predicted, and nothing from it.
        for (index, input) in batch.inputs.enumerated() where input == ToyTokenizer.end {
          #expect(batch.weights[index] == 0)
        }
      }
    }
  }

  /// A row shows "#12:" at the start of its document and only one document a segment.
  @Test func segmentsOfPackedRowsAreWithinOneDocument() throws {
    try withData { data, encoder in
      for batch in try batches(data, encoder, .init(rows: 2, length: 32, mode: .whole, passes: 1)) {
        for segment in batch.segments where batch.weights[segment].contains(1) {
          #expect(batch.inputs[segment].count { $0 == ToyTokenizer.begin } <= 1)
          #expect(batch.inputs[segment].dropFirst().allSatisfy { $0 != ToyTokenizer.begin })
        }
      }
    }
  }

  @Test func wholeDocumentsAreNotSplitWhereTheyFit() throws {
    try withData(longest: 20) { data, encoder in
      for batch in try batches(data, encoder, .init(rows: 3, length: 48, mode: .whole, passes: 1)) {
        for segment in batch.segments where batch.weights[segment].contains(1) {
          #expect(batch.inputs[segment.lowerBound] == ToyTokenizer.begin)
          #expect(batch.targets[segment.upperBound - 1] == ToyTokenizer.end)
        }
      }
    }
  }

  @Test func aPackedRowHasNoPadding() throws {
    try withData { data, encoder in
      var stream = try TrainingStream(data, encoder: encoder, options: .init(rows: 3, length: 20))
      for _ in 0..<40 { #expect(try stream.next()?.padding == 0) }
    }
  }

  @Test(arguments: TrainingStream.Mode.allCases)
  func aRestoredStreamGoesOnExactly(_ mode: TrainingStream.Mode) throws {
    try withData(25, partBytes: 24) { data, encoder in
      let options = TrainingStream.Options(rows: 3, length: 16, mode: mode)
      var stream = try TrainingStream(data, encoder: encoder, options: options)
      for step in 0..<45 {
        if step % 3 == 0 {
          let stored = stream.position.json.serialized()
          let position = try DataPosition(json: JSON.parse(stored, name: "position"))
          #expect(position == stream.position)
          var restored = try TrainingStream(
            data, encoder: encoder, options: options, position: position)
          var original = stream
          for _ in 0..<20 { #expect(try restored.next() == original.next()) }
        }
        _ = try stream.next()
      }
      #expect(mode == .windows || stream.position.epoch >= 1)
    }
  }

  /// One test for all modes, because the number of threads is the process's.
  @Test func threadsNeverChangeABatch() throws {
    let before = Parallel.threads
    defer { Parallel.threads = before }
    try withData { data, encoder in
      func some(_ threads: Int) throws -> [TrainingBatch?] {
        Parallel.threads = threads
        return try TrainingStream.Mode.allCases.flatMap { mode in
          var stream = try TrainingStream(
            data, encoder: encoder, options: .init(rows: 2, length: 30, mode: mode))
          return try (0..<20).map { _ in try stream.next() }
        }
      }
      let (one, four) = (try some(1), try some(4))
      #expect(one == four)
    }
  }

  @Test func epochsHaveOrdersOfTheirOwn() throws {
    try withData { data, _ in
      let file = data.order(.training, epoch: 0, isShuffled: false)
      let first = data.order(.training, epoch: 0, isShuffled: true)
      let second = data.order(.training, epoch: 1, isShuffled: true)
      #expect(file == Array(0..<57))
      #expect(first.sorted() == file && second.sorted() == file)
      #expect(first != file && second != file && first != second)
      #expect(data.order(.training, epoch: 0, isShuffled: true) == first)
    }
  }

  /// Each of the six orders of three documents comes up about as often.
  @Test func shufflesAreFair() throws {
    try withData(3) { data, _ in
      var counts: [[UInt32]: Int] = [:]
      for epoch in 0..<6000 {
        counts[data.order(.training, epoch: epoch, isShuffled: true), default: 0] += 1
      }
      #expect(counts.count == 6)
      // Five standard deviations of a binomial count: 5 √(6000 · 1/6 · 5/6).
      #expect(counts.values.allSatisfy { abs($0 - 1000) < 145 })
    }
  }

  @Test func heldOutDocumentsAreNeverTrainedOn() throws {
    for heldOut in [HeldOut.count(1), .count(13), .count(56), .share(0.2), .share(1e-9)] {
      try withData(heldOut: heldOut, repeats: 2) { data, encoder in
        let training = data.order(.training, epoch: 3, isShuffled: true)
        let kept = data.order(.heldOut, epoch: 0, isShuffled: false)
        #expect(kept == kept.sorted() && !kept.isEmpty)
        #expect(Set(training).isDisjoint(with: kept))
        #expect(training.count == 2 * (57 - kept.count))
        if case .count(let count) = heldOut { #expect(kept.count == count) }
        let wanted = try kept.map { try encoder.encode(data.content(Int($0))) }
        let batches = try batches(data, encoder, .init(rows: 2, length: 16, use: .heldOut))
        #expect(batches.reduce(0) { $0 + $1.predictions } == pairs(wanted).values.reduce(0, +))
      }
    }
  }

  /// "#n:" names each document, so that windows show where they are from.
  @Test func windowsKeepOutOfHeldOutDocuments() throws {
    try withData(20, longest: 10, heldOut: .count(10)) { data, encoder in
      let kept = Set(data.order(.heldOut, epoch: 0, isShuffled: false).map(Int.init))
      var stream = try TrainingStream(
        data, encoder: encoder, options: .init(rows: 8, length: 40, mode: .windows))
      var seen: Set<Int> = []
      for _ in 0..<20 {
        let batch = try #require(try stream.next())
        for row in batch.segments {
          let text = batch.inputs[row].map { encoder.tokenizer.token($0) ?? [] }.joined()
          for piece in String(decoding: text, as: UTF8.self).split(separator: "#").dropFirst() {
            if let colon = piece.firstIndex(of: ":"), let number = Int(piece[..<colon]) {
              seen.insert(number)
            }
          }
        }
      }
      #expect(seen.isDisjoint(with: kept) && seen.count == 10)
    }
  }

  @Test func oneTokenDocumentsArePackedWithOthers() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "a\n\nb\n\nlonger")
      let data = try file.data(.text(separator: "\n\n"))
      let encoder = try ToyTokenizer.encoder(addsBegin: false)
      let batches = try batches(
        data, encoder, .init(rows: 1, length: 8, isShuffled: false, passes: 1))
      #expect(batches.count == 1)
      #expect(batches[0].segments == [0..<1, 1..<2, 2..<8])
      #expect(batches[0].targets[..<2].allSatisfy { $0 == ToyTokenizer.end })
    }
  }

  @Test(arguments: [1, nil]) func dataWithNothingToPredictIsRefused(_ passes: Int?) throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "a")
      let encoder = try ExampleEncoder(
        tokenizer: ToyTokenizer.make(addsBegin: false), endTokens: [])
      var stream = try TrainingStream(
        file.data(), encoder: encoder, options: .init(rows: 1, length: 8, passes: passes))
      #expect(sentence { _ = try stream.next() }.contains("no token that follows another"))
    }
  }

  @Test func wholeExamplesComeInTheOrderOfTheEpoch() throws {
    try withData { data, encoder in
      var stream = try TrainingStream(
        data, encoder: encoder, options: .init(rows: 1, length: 8, passes: 1))
      let examples = try stream.nextExamples(50) + stream.nextExamples(50)
      let wanted = try data.order(.training, epoch: 0, isShuffled: true).map {
        try encoder.encode(data.content(Int($0)))
      }
      #expect(examples == wanted)
      #expect(examples.allSatisfy { $0.prompt == [ToyTokenizer.begin] })
    }
  }

  @Test func windowsHaveNoEnd() throws {
    try withData(heldOut: .count(3)) { data, encoder in
      for use in TrainingData.Use.allCases {
        let options = TrainingStream.Options(
          rows: 1, length: 8, mode: .windows, use: use, passes: 1)
        let text = sentence { _ = try TrainingStream(data, encoder: encoder, options: options) }
        #expect(text.hasPrefix("the mode of data that is passed a number of times is windows"))
      }
    }
  }

  @Test func positionsOutsideTheDataAreRefused() throws {
    try withData { data, encoder in
      let position = DataPosition(epoch: 0, document: 57, token: 0, batch: 9)
      #expect(
        sentence {
          _ = try TrainingStream(
            data, encoder: encoder, options: .init(rows: 1, length: 8), position: position)
        }.contains("it is after 57 documents, the data has 57"))
      #expect(
        sentence { _ = try DataPosition(json: ["epoch": 1]) }.contains("\"document\" is not"))
    }
  }

  @Test func theSummaryCountsWhatIsThere() throws {
    try withData(heldOut: .count(7), repeats: 3) { data, encoder in
      let summary = try data.summary(encoder)
      #expect(summary.documents == 57 && summary.sampledDocuments == 57)
      #expect(summary.trainingDocuments == 150 && summary.heldOutDocuments == 7)
      let tokens = try data.order(.training, epoch: 0, isShuffled: false).reduce(0) {
        try $0 + encoder.encode(data.content(Int($1))).tokens.count
      }
      #expect(abs(Double(summary.estimatedTrainingTokens) / Double(tokens) - 1) < 0.1)
      // Begin, end, number sign, colon, ten digits, 26 letters.
      #expect(summary.distinctTokens == 40)
      #expect(summary.countedShare > 0.9 && summary.countedShare < 1)
    }
  }
}
