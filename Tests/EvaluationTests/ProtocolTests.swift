import Evaluation
import Testing

@Test(arguments: [2, 3, 5, 8], [nil, 1])
func everyTokenWithSomethingBeforeItIsScoredOnce(window: Int, begin: Int?) throws {
  let content = window - (begin == nil ? 0 : 1)
  for stride in 1...content {
    let evaluation = try EvaluationProtocol(window: window, stride: stride, beginToken: begin)
    for length in 0...20 {
      let document = Array(100..<(100 + length))
      var scored: [Int] = []
      for window in evaluation.windows([document]) {
        #expect(window.tokens.count <= evaluation.window)
        #expect(window.firstScored >= 1)
        scored += window.tokens[window.firstScored...]
      }
      // Without a BOS the first token of a window that starts fresh has no context: always the
      // document's first, and with windows that do not overlap each window's first.
      let fresh =
        begin != nil
        ? []
        : stride == content
          ? document.enumerated()
            .filter { $0.offset % content == 0 }.map(\.element) : document.prefix(1).map { $0 }
      #expect(scored == document.filter { !fresh.contains($0) }, "\(evaluation.name) \(length)")
    }
  }
}

@Test func noWindowCrossesADocumentsBorder() throws {
  let evaluation = try EvaluationProtocol(window: 6, beginToken: 0, separatesDocuments: true)
  let windows = evaluation.windows([[1, 1, 1], [], [2, 2, 2, 2, 2, 2, 2], [3]])
  #expect(windows.map(\.tokens) == [[0, 1, 1, 1], [0, 2, 2, 2, 2, 2], [0, 2, 2], [0, 3]])
}

@Test func settingsThatScoreNothingAreRefused() {
  #expect(throws: EvaluationError.self) { try EvaluationProtocol(window: 1) }
  #expect(throws: EvaluationError.self) { try EvaluationProtocol(window: 8, stride: 0) }
  #expect(throws: EvaluationError.self) { try EvaluationProtocol(window: 8, stride: 9) }
  #expect(throws: EvaluationError.self) {
    try EvaluationProtocol(window: 8, stride: 8, beginToken: 0)
  }
}

@Test func theNameTellsProtocolsApart() throws {
  let names = [
    try EvaluationProtocol(window: 8), try EvaluationProtocol(window: 9),
    try EvaluationProtocol(window: 8, stride: 4), try EvaluationProtocol(window: 8, beginToken: 1),
    try EvaluationProtocol(window: 8, separatesDocuments: true),
  ].map(\.name)
  #expect(Set(names).count == names.count)
}

@Test func percentilesAreNumPys() {
  // numpy.percentile([1, 2, 4, 8], [0, 25, 50, 99, 100])
  let values = [1.0, 2, 4, 8]
  let expected = [0.0: 1.0, 0.25: 1.75, 0.5: 3.0, 0.99: 7.88, 1: 8.0]
  for (share, value) in expected {
    #expect(abs(Statistics.percentile(share, ofSorted: values) - value) < 1e-12)
  }
}

@Test func standardErrorIsThatOfTheMean() {
  // Deviations -3, -1, 1, 3: variance 20 / 3, of the mean 20 / 12.
  #expect(abs(Statistics.standardError([1, 3, 5, 7]) - (20.0 / 12).squareRoot()) < 1e-12)
  #expect(Statistics.standardError([4]) == 0)
}
