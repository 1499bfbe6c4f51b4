import Text

/// The figures of `eval generation` as a person reads them.
enum GenerationReport {
  static func text(_ json: JSON, protocols: [String]) -> String {
    var lines: [String] = []
    func number(_ key: String, _ decimals: Int) -> String? {
      json[key]?.double.map { Format.number($0, decimals) }
    }
    func withError(_ key: String, _ decimals: Int) -> String? {
      guard let value = json[key]?.double, let error = json["\(key)_standard_error"]?.double else {
        return nil
      }
      return Format.withError(value, error, decimals)
    }
    for (title, key) in [("ROUGE-1", "rouge_1"), ("ROUGE-2", "rouge_2"), ("ROUGE-L", "rouge_l")] {
      guard let f1 = withError("\(key)_f1", 4), let precision = number("\(key)_precision", 4),
        let recall = number("\(key)_recall", 4)
      else { continue }
      lines.append("\(title)     F1 \(f1), precision \(precision), recall \(recall)")
    }
    if let bleu = withError("bleu", 2), let brevity = number("brevity_penalty", 3) {
      lines.append("BLEU        \(bleu), brevity penalty \(brevity)")
    }
    let distinct = (1...3).compactMap { number("distinct_\($0)", 4) }
    lines.append("distinct    \(distinct.joined(separator: ", ")) (runs of 1, 2, 3 words)")
    if let likelihood = withError("teacher_log_likelihood", 4),
      let tokens = json["teacher_tokens"]?.int
    {
      lines.append(
        "teacher     \(likelihood) nats per token, log p of \(Format.count(tokens)) tokens")
    }
    lines.append(
      "texts       \(Format.count(json["texts"]?.int ?? 0)), "
        + "\(Format.count(json["words"]?.int ?? 0)) words")
    if let speed = number("tokens_per_second", 0), let tokens = json["tokens"]?.int {
      lines.append("generated   \(Format.count(tokens)) tokens, \(speed) per second")
    }
    lines += protocols.enumerated().map {
      ($0.offset == 0 ? "protocol    " : "            ") + $0.element
    }
    return lines.joined(separator: "\n")
  }
}
