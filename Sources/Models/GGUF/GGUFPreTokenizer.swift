import Text

/// How a byte-level tokenizer cuts text before it merges, under the names that llama.cpp gives to
/// the published ways (`tokenizer.ggml.pre`).
struct GGUFPreTokenizer: Sendable {
  enum Step: Equatable, Sendable {
    case split(String)
    case digits
  }

  /// The first is the one that is written.
  let names: [String]
  let steps: [Step]
  var normalizesToNFC = false
  /// Words that are tokens are not put together from merges.
  var ignoresMerges = false
  /// Whether a text begins with the begin token where the file does not say.
  var addsBegin = false

  static func named(_ name: String) -> GGUFPreTokenizer? {
    all.first { $0.names.contains(name) }
  }

  // MARK: The table

  private static let contractions = #"(?i:'s|'t|'re|'ve|'m|'ll|'d)"#
  private static let gpt2 =
    #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
  /// Other spellings of the same cut.
  private static let gpt2Spellings = [
    gpt2, #"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#,
  ]
  private static let capitals = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
  private static let small = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#

  private static func modern(digits: String) -> String {
    contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|"# + digits
      + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  }

  private static func cased(contractions: String, digits: String) -> String {
    let start = #"[^\r\n\p{L}\p{N}]?"#
    return "\(start)\(capitals)*\(small)+\(contractions)|\(start)\(capitals)+\(small)*"
      + "\(contractions)|\(digits)" + #"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  }

  static let all: [GGUFPreTokenizer] = [
    GGUFPreTokenizer(
      names: ["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"], steps: [.split(gpt2)]),
    GGUFPreTokenizer(
      names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
      steps: [.split(modern(digits: #"\p{N}{1,3}"#))], ignoresMerges: true, addsBegin: true),
    GGUFPreTokenizer(
      names: ["dbrx", "smaug-bpe"], steps: [.split(modern(digits: #"\p{N}{1,3}"#))]),
    GGUFPreTokenizer(
      names: ["qwen2", "deepseek-r1-qwen"], steps: [.split(modern(digits: #"\p{N}"#))],
      normalizesToNFC: true),
    GGUFPreTokenizer(names: ["stablelm2"], steps: [.split(modern(digits: #"\p{N}"#))]),
    GGUFPreTokenizer(
      names: ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
      steps: [.digits, .split(gpt2)]),
    GGUFPreTokenizer(
      names: ["bloom", "gpt3-finnish"], steps: [.split(#" ?[^(\s|.,!?…。，、।۔،)]+"#)]),
    GGUFPreTokenizer(
      names: ["tekken"], steps: [.split(cased(contractions: "", digits: #"\p{N}"#))],
      ignoresMerges: true, addsBegin: true),
    GGUFPreTokenizer(
      names: ["gpt-4o", "llama4"],
      steps: [.split(cased(contractions: "\(contractions)?", digits: #"\p{N}{1,3}"#))]),
    GGUFPreTokenizer(
      names: ["default"],
      steps: [
        .split(#"[\p{P}\$\+<=>\^~\|]+"#), .split(gpt2), .split(#"\p{N}+"#),
        .split("[0-9][0-9][0-9]"),
      ]),
  ]

  // MARK: To and from tokenizer.json

  /// The `pre_tokenizer` entry.
  var json: JSON {
    var list = steps.map { step -> JSON in
      switch step {
      case .split(let pattern):
        [
          "type": "Split", "pattern": ["Regex": JSON(pattern)], "behavior": "Isolated",
          "invert": false,
        ]
      case .digits: ["type": "Digits", "individual_digits": true]
      }
    }
    list.append([
      "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    ])
    return ["type": "Sequence", "pretokenizers": .array(list)]
  }

  /// The way that a `pre_tokenizer` entry cuts, if llama.cpp has a name for it.
  static func recognise(_ json: JSON?, ignoresMerges: Bool, normalizesToNFC: Bool)
    -> GGUFPreTokenizer?
  {
    guard let json, let steps = steps(json) else { return nil }
    let same = all.filter { $0.steps == steps && $0.names != ["default"] }
    return same.first {
      $0.ignoresMerges == ignoresMerges && $0.normalizesToNFC == normalizesToNFC
    } ?? same.first { $0.ignoresMerges == ignoresMerges } ?? same.first
  }

  private static func steps(_ json: JSON) -> [Step]? {
    var entries = [json]
    if json["type"]?.string == "Sequence" { entries = json["pretokenizers"]?.array ?? [] }
    guard let last = entries.popLast(), last["type"]?.string == "ByteLevel",
      last["add_prefix_space"]?.bool == false
    else { return nil }
    var steps: [Step] = []
    for entry in entries {
      switch entry["type"]?.string {
      case "Split":
        guard let pattern = entry["pattern"]?["Regex"]?.string,
          entry["behavior"]?.string == "Isolated", entry["invert"]?.bool != true
        else { return nil }
        steps.append(.split(gpt2Spellings.contains(pattern) ? gpt2 : pattern))
      case "Digits":
        guard entry["individual_digits"]?.bool == true else { return nil }
        steps.append(.digits)
      default: return nil
      }
    }
    if last["use_regex"]?.bool != false { steps.append(.split(gpt2)) }
    return steps
  }
}
