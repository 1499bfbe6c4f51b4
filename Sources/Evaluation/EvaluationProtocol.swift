/// How a text becomes scored tokens. Two perplexities compare only under the same protocol, so every
/// report carries this value's name.
public struct EvaluationProtocol: Sendable, Equatable {
  /// Tokens fed to the model together, a leading BOS included.
  public var window: Int
  /// Tokens by which one window starts after the other; those before were scored already and are
  /// context only. Equal to the window: windows do not overlap.
  public var stride: Int
  /// Fed before every window, never scored.
  public var beginToken: Int?
  /// Documents are scored one by one; no window crosses their border.
  public var separatesDocuments: Bool

  public init(
    window: Int, stride: Int? = nil, beginToken: Int? = nil, separatesDocuments: Bool = false
  ) throws(EvaluationError) {
    let content = window - (beginToken == nil ? 0 : 1)
    guard content >= 2 || (beginToken != nil && content >= 1) else {
      throw .windowTooSmall(window)
    }
    let stride = stride ?? content
    guard stride >= 1, stride <= content else { throw .badStride(stride, content: content) }
    self.window = window
    self.stride = stride
    self.beginToken = beginToken
    self.separatesDocuments = separatesDocuments
  }

  public var name: String {
    [
      "windows of \(window) tokens", "stride \(stride)",
      beginToken == nil ? "no BOS" : "BOS before each window",
      separatesDocuments ? "document by document" : "one stream",
    ].joined(separator: ", ")
  }

  /// A run of tokens that one forward pass sees.
  package struct Window {
    /// With the BOS, if the protocol has one.
    package var tokens: [Int]
    /// Index in `tokens` of the first token that is scored.
    package var firstScored: Int

    package var scored: Int { tokens.count - firstScored }
  }

  /// Cuts documents into windows. The first token of a window without context before it has
  /// nothing to be predicted from and is not scored.
  package func windows(_ documents: [[Int]]) -> [Window] {
    let lead = beginToken.map { [$0] } ?? []
    let content = window - lead.count
    var windows: [Window] = []
    for document in documents {
      var start = 0
      var scoredEnd = 0
      while start < document.count {
        let end = min(start + content, document.count)
        let tokens = lead + document[start..<end]
        let firstScored = max(1, lead.count + scoredEnd - start)
        if tokens.count > firstScored {
          windows.append(Window(tokens: tokens, firstScored: firstScored))
        }
        scoredEnd = end
        if end == document.count { break }
        start += stride
      }
    }
    return windows
  }
}

/// What can be wrong with an evaluation's settings or text.
public enum EvaluationError: Error, CustomStringConvertible, Sendable {
  case windowTooSmall(Int)
  case badStride(Int, content: Int)
  case nothingToScore(text: String)
  case windowBeyondContext(window: Int, context: Int)
  case vocabulariesDiffer(Int, Int)
  case notFinite(model: String)
  case badBaselineCache(path: String, reason: String)
  case noSamples
  case sampleWithoutReference(Int)
  case textBeyondContext(sample: Int, tokens: Int, context: Int)

  public var description: String {
    switch self {
    case .windowTooSmall(let window):
      "a window of \(window) tokens scores nothing. Use --window 2 or more."
    case .badStride(let stride, let content):
      "a stride of \(stride) does not fit. Use --stride between 1 and the window's \(content) tokens."
    case .nothingToScore(let text):
      "\(text) has no token that can be scored. Give a text of at least two tokens."
    case .windowBeyondContext(let window, let context):
      "a window of \(window) tokens is more than the model's context of \(context). "
        + "Use --window \(context) or less."
    case .vocabulariesDiffer(let a, let b):
      "the models have vocabularies of \(a) and \(b) tokens, so their predictions cannot be compared "
        + "token by token. Use a baseline with the same tokenizer."
    case .notFinite(let model):
      "\(model) produced logits that are not finite. Its weights are damaged or overflow."
    case .badBaselineCache(let path, let reason):
      "\(path) cannot serve as cached baseline: \(reason). Delete it to have it made again."
    case .noSamples:
      "there is no generated text to score. Give at least one."
    case .sampleWithoutReference(let number):
      "text \(number) has no reference. Give each text at least one."
    case .textBeyondContext(let number, let tokens, let context):
      "text \(number) with its prompt has \(tokens) tokens, more than the teacher's context of "
        + "\(context). Generate fewer tokens or use a teacher with a longer context."
    }
  }
}
