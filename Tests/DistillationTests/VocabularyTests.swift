import Distillation
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Tokenizers
import Training

struct VocabularyMatchTests {
  private static let merges = [["t", "h"], ["th", "e"], ["a", "n"]]

  @Test func vocabulariesAreEqualPaddedOrDifferent() throws {
    let plain = try CacheFixture.tokenizer()
    let merged = try CacheFixture.tokenizer(merges: Self.merges)
    let reversed = try CacheFixture.tokenizer(isReversed: true)
    let count = plain.vocabularySize
    func match(
      _ student: Tokenizer, _ studentRows: Int, _ teacher: Tokenizer, _ teacherRows: Int
    ) throws -> VocabularyMatch {
      try VocabularyMatch(student: (student, studentRows), teacher: (teacher, teacherRows))
    }
    #expect(try match(plain, count, plain, count) == .equal)
    #expect(try match(plain, count, plain, 128) == .padded(common: count))
    #expect(try match(plain, 128, plain, count) == .padded(common: count))
    #expect(try match(plain, count, merged, count + 3) == .padded(common: count))
    // The two special ones and the character in the middle keep their ids.
    #expect(try match(plain, count, reversed, count) == .different(shared: count))
    #expect(
      CacheFixture.message { _ = try match(plain, count - 1, plain, count) }
        == "the student's tokenizer has \(count) tokens and its model rows for \(count - 1). "
        + "Use the tokenizer that belongs to the model.")
  }

  @Test func differentVocabulariesAreForTheLossThatNeedsNoCommonOne() throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let reversed = try CacheFixture.tokenizer(isReversed: true)
      let student = (tokenizer: try CacheFixture.tokenizer(), rows: 98)
      struct TokenLoss: LogitLoss {
        let name = "soft"
        let needsTeacher = true
        func accumulate(
          _ rows: LogitRows, factor: Float, into gradient: UnsafeMutablePointer<Float>
        ) -> Double { 0 }
      }
      func fit(_ losses: [any LogitLoss], states: Bool = false) throws -> any Teacher {
        try Vocabularies.fit(
          teacher, tokenizer: reversed, student: student, losses: losses, readsStates: states
        ).teacher
      }
      let fitted = try fit([LabelLoss(), SortedProbabilityLoss()])
      #expect(fitted is CrossTokenizerTeacher)
      #expect(
        CacheFixture.message { _ = try fit([TokenLoss()]) }
          == "teacher and student have different vocabularies (98 of the student's 98 tokens are "
          + "spelled alike), which soft cannot compare. Use uld, with labels if you like.")
      #expect(CacheFixture.message { _ = try fit([], states: true) }.contains("a loss on states"))
    }
  }

  /// More rows are cut off; missing ones are improbable, and never infinitely so.
  @Test func paddedTeachersSpeakInTheStudentsRows() throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder, CacheFixture.config(vocabulary: 100))
      let batch = try CacheFixture.batches(try CacheFixture.stream(folder))[0]
      let plain = ModelTeacher(teacher)
      _ = try plain.begin(batch, wanting: .none)
      guard case .logits(let truth) = try plain.rows([0, 3]) else { return }
      for size in [98, 100, 110] {
        let padded = PaddedTeacher(ModelTeacher(teacher), vocabularySize: size)
        _ = try padded.begin(batch, wanting: .none)
        guard case .logits(let rows) = try padded.rows([0, 3]) else { return }
        #expect(rows.shape == [2, size])
        for row in 0..<2 {
          let old = truth.array[(row * 100)..<(row * 100 + 100)]
          let new = Array(rows.array[(row * size)..<(row * size + size)])
          #expect(new.prefix(100).elementsEqual(old.prefix(min(size, 100))))
          #expect(new.dropFirst(100).allSatisfy { $0 == (old.max() ?? 0) - 40 })
        }
      }
    }
  }
}

struct TokenSpanTests {
  @Test func tokensAreAlignedWhereBothHaveReadTheSame() throws {
    let plain = try CacheFixture.tokenizer()
    let merged = try CacheFixture.tokenizer(merges: [["t", "h"], ["th", "e"], ["a", "n"]])
    let text = Array("then an ant".utf8)
    let ours = try TokenSpans([0] + (try plain.encode(text)), plain)
    let theirs = try TokenSpans([0] + (try merged.encode(text)), merged)
    #expect(ours.text == text && theirs.text == text)
    // <s> the n _ an _ an t
    #expect(theirs.tokens.count == 8)
    #expect(ours.aligned(with: theirs) == [0, nil, nil, 1, 2, 3, nil, 4, 5, nil, 6, 7])
    #expect(theirs.aligned(with: ours) == [0, 3, 4, 5, 7, 8, 10, 11])
  }

  @Test func nothingIsAlignedAfterTheTextsPart() throws {
    let plain = try CacheFixture.tokenizer()
    let ours = try TokenSpans(plain.encode(Array("abXde".utf8)), plain)
    let theirs = try TokenSpans(plain.encode(Array("abxde".utf8)), plain)
    #expect(ours.aligned(with: theirs) == [0, 1, nil, nil, nil])
  }

  /// The default model's tokenizer spells rare characters byte by byte.
  @Test func placesInsideACharacterAreNoPlaces() throws {
    let path = SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources/stories")
    let json = try Data(contentsOf: path.appending(path: "tokenizer.json"))
    let tokenizer = try Tokenizer(
      json: .parse([UInt8](json), name: "tokenizer.json"))
    let text = Array("a \u{732B} b".utf8)
    let spans = try TokenSpans(tokenizer.encode(text, addSpecialTokens: false), tokenizer)
    #expect(spans.text == text)
    let offsets = Set(spans.tokenEnding.keys)
    #expect(offsets.isDisjoint(with: [3, 4]) && offsets.contains(text.count))
  }
}

struct CrossTokenizerTeacherTests {
  /// With the tokens only renumbered, every place has a partner and the teacher sees the same texts.
  @Test func aTeacherOfOtherTokensReadsTheSameText() throws {
    try withTemporaryDirectory { folder in
      let model = try CacheFixture.model(folder, CacheFixture.config(vocabulary: 101))
      let plain = try CacheFixture.tokenizer()
      let merged = try CacheFixture.tokenizer(
        merges: [["1", "2"], ["e", "r"], ["a", "b"]], isReversed: true)
      let teacher = CrossTokenizerTeacher(
        model, tokenizer: merged, studentTokenizer: plain, beginToken: 0)
      for batch in try CacheFixture.batches(try CacheFixture.stream(folder, mode: .padded)) {
        _ = try teacher.begin(batch, wanting: .none)
        let wanted = batch.wantedRows
        guard !wanted.isEmpty, case .logits(let rows) = try teacher.rows(wanted) else { continue }
        for segment in batch.segments where batch.weights[segment.lowerBound] != 0 {
          let own = try plain.decode(Array(batch.inputs[segment]))
          let tokens = [0] + (try merged.encode(own))
          let expected = model.logits(
            try model.hidden(tokens: tokens, segments: [0..<tokens.count]))
          var offset = 0
          for place in segment where batch.weights[place] != 0 {
            let row = wanted.firstIndex(of: place) ?? 0
            let found = Array(rows.array[(row * 101)..<(row * 101 + 101)])
            // Bytes read so far; pieces of documents begin without <s>.
            offset = try plain.decode(Array(batch.inputs[segment.lowerBound...place])).count
            var (partner, read): (Int?, Int) = (nil, 0)
            for (index, token) in tokens.enumerated() {
              read += try merged.decode([token]).count
              if read == offset, partner == nil { partner = index }
            }
            if let partner {
              let row = expected.array[(partner * 101)..<(partner * 101 + 101)]
              #expect(zip(found, row).allSatisfy { abs($0 - $1) < 1e-4 * (1 + abs($1)) })
            } else {
              #expect(found[0].isNaN)
            }
          }
        }
      }
      #expect(teacher.alignedShare > 0.8 && teacher.alignedShare < 1)
    }
  }

  @Test func aTextLongerThanTheTeachersContextIsReadAsFarAsItGoes() throws {
    try withTemporaryDirectory { folder in
      var config = CacheFixture.config()
      if case .object(var fields) = config {
        fields["max_position_embeddings"] = 8
        config = .object(fields)
      }
      let model = try CacheFixture.model(folder, config)
      let plain = try CacheFixture.tokenizer()
      let reversed = try CacheFixture.tokenizer(isReversed: true)
      let teacher = CrossTokenizerTeacher(model, tokenizer: reversed, studentTokenizer: plain)
      for batch in try CacheFixture.batches(try CacheFixture.stream(folder, mode: .padded)) {
        _ = try teacher.begin(batch, wanting: .none)
        _ = try teacher.rows(batch.wantedRows)
      }
      #expect(teacher.aligned > 0 && teacher.aligned < teacher.wanted)
    }
  }
}
