import Models

/// Texts of one length out of a long one.
struct TextWindows {
  var samples: Int
  /// Tokens of each; at most the model's context.
  var length: Int

  /// Windows without overlap, spread evenly; each begins with the model's own first token if it has
  /// one.
  func cut(_ tokens: [Int], _ model: ModelConfiguration) throws(ImportanceError) -> [[Int]] {
    let length = min(self.length, model.contextLength ?? self.length)
    let prefix = model.beginToken.map { [$0] } ?? []
    let body = length - prefix.count
    guard body > 0, tokens.count >= body else {
      throw .noText(needed: max(body, 1), found: tokens.count)
    }
    let whole = tokens.count / body
    let count = min(samples, whole)
    return (0..<count).map { index in
      let first = index * whole / count * body
      return prefix + tokens[first..<(first + body)]
    }
  }
}
