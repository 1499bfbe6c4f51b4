public import Tokenizers

/// The text of new ids as it becomes certain, up to a stop string.
public struct TextStream {
  private var decoder: StreamingDecoder
  private var stops: StopStrings
  /// All that has been passed on.
  public private(set) var text: [UInt8] = []

  /// - Parameters:
  ///   - prompt: ids before the text: a leading space of the first new token survives only behind
  ///     them.
  ///   - stops: strings that end the text.
  public init(
    _ tokenizer: Tokenizer, after prompt: [Int], stops: [[UInt8]] = []
  ) throws(TokenizerError) {
    decoder = tokenizer.streamingDecoder()
    for id in prompt { _ = try decoder.push(id) }
    self.stops = StopStrings(stops)
  }

  /// Whether a stop string has ended the text.
  public var isStopped: Bool { stops.found != nil }

  /// - Returns: the bytes that this id makes certain.
  public mutating func push(_ id: Int) throws(TokenizerError) -> [UInt8] {
    passed(stops.push(try decoder.push(id)))
  }

  /// - Returns: what was held back.
  public mutating func finish() -> [UInt8] {
    passed(stops.push(decoder.finish()) + stops.finish())
  }

  private mutating func passed(_ bytes: [UInt8]) -> [UInt8] {
    text += bytes
    return bytes
  }
}

extension Generator.Result {
  /// The same with the reason of a stream that a stop string has ended.
  public func stopped(by stream: TextStream) -> Generator.Result {
    var result = self
    if stream.isStopped { result.stopReason = .stopString }
    return result
  }
}
