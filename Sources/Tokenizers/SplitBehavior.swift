import Text

/// What becomes of the matches a piece is split at.
enum SplitBehavior: Sendable {
  case removed, isolated, mergedWithPrevious, mergedWithNext, contiguous

  static func read(_ component: Component) throws(TokenizerError) -> SplitBehavior {
    switch try component.string("behavior") {
    case "Removed": return .removed
    case "Isolated": return .isolated
    case "MergedWithPrevious": return .mergedWithPrevious
    case "MergedWithNext": return .mergedWithNext
    case "Contiguous": return .contiguous
    case let other: throw component.unsupported("the split behavior `\(other)`")
    }
  }

  /// Splits every piece at the matches of a pattern, or if inverted at what lies between them.
  func split(_ pieces: inout Pieces, at pattern: Pattern, isInverted: Bool) {
    var output: [Range<Int>] = []
    output.reserveCapacity(pieces.ranges.count + pieces.text.count / 4)
    pieces.text.withUnsafeBufferPointer { text in
      for range in pieces.ranges {
        var builder = PieceBuilder(behavior: self, start: range.lowerBound)
        let piece = UnsafeBufferPointer(rebasing: text[range])
        pattern.forEachMatch(in: piece) { start, end in
          builder.addGap(to: range.lowerBound + start, isDelimiter: isInverted, &output)
          builder.add(to: range.lowerBound + end, isDelimiter: !isInverted, &output)
        }
        builder.addGap(to: range.upperBound, isDelimiter: isInverted, &output)
        builder.finish(&output)
      }
    }
    pieces.ranges = output
  }
}

/// Joins the alternating spans of one piece as the behavior asks.
private struct PieceBuilder {
  let behavior: SplitBehavior
  /// Where the next span starts.
  private var position: Int
  private var pending: Range<Int>?
  private var pendingIsDelimiter = false

  init(behavior: SplitBehavior, start: Int) {
    self.behavior = behavior
    position = start
  }

  @inline(__always)
  mutating func addGap(to end: Int, isDelimiter: Bool, _ output: inout [Range<Int>]) {
    if end > position { add(to: end, isDelimiter: isDelimiter, &output) }
  }

  /// Adds the span up to `end`. An empty match is a span too: it keeps its neighbours apart.
  @inline(__always)
  mutating func add(to end: Int, isDelimiter: Bool, _ output: inout [Range<Int>]) {
    let span = position..<end
    position = end
    switch behavior {
    case .isolated: Self.append(span, to: &output)
    case .removed: if !isDelimiter { Self.append(span, to: &output) }
    case .contiguous: join(span, isDelimiter, when: isDelimiter == pendingIsDelimiter, &output)
    case .mergedWithPrevious:
      join(span, isDelimiter, when: isDelimiter && !pendingIsDelimiter, &output)
    case .mergedWithNext:
      join(span, isDelimiter, when: !isDelimiter && pendingIsDelimiter, &output)
    }
  }

  private mutating func join(
    _ span: Range<Int>, _ isDelimiter: Bool, when joins: Bool, _ output: inout [Range<Int>]
  ) {
    if let last = pending {
      if joins {
        pending = last.lowerBound..<span.upperBound
      } else {
        Self.append(last, to: &output)
        pending = span
      }
    } else {
      pending = span
    }
    pendingIsDelimiter = isDelimiter
  }

  mutating func finish(_ output: inout [Range<Int>]) {
    if let last = pending { Self.append(last, to: &output) }
  }

  @inline(__always)
  private static func append(_ span: Range<Int>, to output: inout [Range<Int>]) {
    if !span.isEmpty { output.append(span) }
  }
}
