extension Pattern {
  /// Whether a match starts at the first byte, as Python's `re.match` asks.
  public func matchesPrefix(of text: [UInt8]) -> Bool {
    matches(in: text).first?.lowerBound == 0
  }
}
