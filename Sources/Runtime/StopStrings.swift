/// Watches a text for strings that end it, byte by byte, wherever the tokens' borders lie.
///
/// The string that is complete first ends the text, the longest of those that are complete at once;
/// it and what follows are not passed on, and neither is a byte that may yet turn out to begin one.
public struct StopStrings: Sendable {
  private let stops: [[UInt8]]
  /// Bytes not passed on yet.
  private var held: [UInt8] = []
  /// The string that ended the text.
  public private(set) var found: [UInt8]?

  /// - Parameter stops: empty ones are left out.
  public init(_ stops: [[UInt8]]) {
    self.stops = stops.filter { !$0.isEmpty }
  }

  /// - Returns: the bytes that are certain to belong to the text.
  public mutating func push(_ bytes: [UInt8]) -> [UInt8] {
    guard found == nil else { return [] }
    guard !stops.isEmpty else { return bytes }
    for byte in bytes {
      held.append(byte)
      let complete = stops.filter { held.count >= $0.count && held.suffix($0.count) == $0[...] }
      if let stop = complete.max(by: { $0.count < $1.count }) {
        found = stop
        held.removeLast(stop.count)
        return take(held.count)
      }
    }
    let longest = stops.reduce(0) { longest, stop in
      // The longest end of what is held that begins this string.
      let lengths = (0..<min(stop.count, held.count + 1)).reversed()
      return max(longest, lengths.first { held.suffix($0) == stop.prefix($0) } ?? 0)
    }
    return take(held.count - longest)
  }

  /// What is left when the text ends otherwise.
  public mutating func finish() -> [UInt8] { found == nil ? take(held.count) : [] }

  private mutating func take(_ count: Int) -> [UInt8] {
    defer { held.removeFirst(count) }
    return Array(held.prefix(count))
  }
}
