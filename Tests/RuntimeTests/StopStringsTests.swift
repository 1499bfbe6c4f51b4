import Runtime
import Tensors
import Testing

/// The text before the stop that is complete first, the longest at that place.
private func textBeforeStop(_ text: [UInt8], _ stops: [[UInt8]]) -> [UInt8]? {
  for end in 0...text.count {
    let complete = stops.filter {
      !$0.isEmpty && end >= $0.count && text[..<end].suffix($0.count) == $0[...]
    }
    if let longest = complete.map(\.count).max() { return Array(text[..<(end - longest)]) }
  }
  return nil
}

@Test func stopsDoNotDependOnWhereTokensEnd() {
  var random = Xoshiro256(seed: 3)
  func letters(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8.random(in: 97...99, using: &random) }
  }
  for _ in 0..<3000 {
    let text = letters(Int.random(in: 0...12, using: &random))
    let stops = (0..<Int.random(in: 0...3, using: &random)).map { _ in
      letters(Int.random(in: 0...4, using: &random))
    }
    let expected = textBeforeStop(text, stops)
    var watcher = StopStrings(stops)
    var passed: [UInt8] = []
    var rest = text[...]
    while !rest.isEmpty {
      let piece = rest.prefix(Int.random(in: 1...5, using: &random))
      rest = rest.dropFirst(piece.count)
      passed += watcher.push(Array(piece))
      // Whatever follows, nothing that was passed on may have to be taken back.
      #expect((expected ?? text).starts(with: passed))
      if watcher.found == nil {
        // What is held back begins a stop string.
        let held = text[passed.count..<(text.count - rest.count)]
        #expect(held.isEmpty || stops.contains { $0.starts(with: held) })
      }
    }
    passed += watcher.finish()
    #expect(passed == expected ?? text)
    #expect((watcher.found != nil) == (expected != nil))
  }
}

@Test func aStopInsideACharacterIsFound() {
  // The second half of é and a letter.
  var watcher = StopStrings([[0xA9, 0x78]])
  #expect(watcher.push([0x61, 0xC3]) == [0x61, 0xC3])
  #expect(watcher.push([0xA9]) == [])
  #expect(watcher.push([0x78, 0x79]) == [])
  #expect(watcher.found == [0xA9, 0x78])
}
