import Codecs
import Foundation
import Yams

extension Recipe {
  /// Reads a recipe from YAML text. Every error carries the line it is about.
  public init(yaml: String, name: String) throws(RecipeError) {
    let root: Node?
    do {
      root = try Yams.compose(yaml: yaml)
    } catch let error as YamlError {
      throw .malformed(Self.oneLine(error), line: Self.line(error))
    } catch {
      throw .malformed("\(error)", line: nil)
    }
    guard let root else { throw .malformed("the recipe is empty", line: 1) }
    var fields = try Fields(root, "a recipe")
    let title = try fields.text("name") ?? name
    let seed = try fields.integer("seed") ?? 0
    guard seed >= 0 else {
      throw .badSetting("seed", value: String(seed), expected: "0 or more", line: fields.line)
    }
    let nodes = try fields.list("stages")
    guard !nodes.isEmpty else { throw .malformed("there are no stages", line: fields.line) }
    var stages: [Stage] = []
    for node in nodes {
      var stage = try Fields(node, "a stage")
      var found: [Stage] = []
      if let body = try stage.node("smooth") { found.append(.smooth(try SmoothStage(body))) }
      if let body = try stage.node("quantize") { found.append(.quantize(try QuantizeStage(body))) }
      if let body = try stage.node("correct") { found.append(.correct(try CorrectStage(body))) }
      if let body = try stage.node("cut") { found.append(.cut(try CutStage(body))) }
      if let body = try stage.node("distill") { found.append(.distill(try DistillStage(body))) }
      if let body = try stage.node("rotate") { found.append(.rotate(try RotateStage(body))) }
      try stage.finish()
      guard found.count == 1 else {
        throw .malformed(
          "a stage names \(found.isEmpty ? "no method" : "several methods")", line: stage.line)
      }
      stages += found
    }
    let calibration = try fields.node("calibration").map(CalibrationRequest.init)
    try fields.finish()
    self.init(name: title, seed: UInt64(seed), stages: stages)
    if let calibration { self.calibration = calibration }
    try validate()
  }

  /// A file's recipe, or the preset of that name.
  public static func named(_ nameOrPath: String) throws(RecipeError) -> Recipe {
    if let preset = presets[nameOrPath] { return preset }
    guard FileManager.default.fileExists(atPath: nameOrPath) else {
      throw .unknownPreset(nameOrPath, known: presets.keys.sorted())
    }
    let text: String
    do {
      text = try String(contentsOfFile: nameOrPath, encoding: .utf8)
    } catch {
      throw .unreadable(path: nameOrPath, reason: error.localizedDescription)
    }
    let file = URL(filePath: nameOrPath).deletingPathExtension().lastPathComponent
    return try Recipe(yaml: text, name: file)
  }

  private static func line(_ error: YamlError) -> Int? {
    switch error {
    case .scanner(_, _, let mark, _), .parser(_, _, let mark, _), .composer(_, _, let mark, _):
      mark.line
    case .duplicatedKeysInMapping(_, let context): context.mark.line
    default: nil
    }
  }

  private static func oneLine(_ error: YamlError) -> String {
    switch error {
    case .scanner(_, let problem, _, _), .parser(_, let problem, _, _),
      .composer(_, let problem, _, _):
      problem
    case .duplicatedKeysInMapping(let duplicates, _):
      "a key stands twice: \(duplicates.map { "\($0)" }.joined(separator: ", "))"
    default: "this is not YAML"
    }
  }
}

extension QuantizeStage {
  fileprivate init(_ node: Node) throws(RecipeError) {
    self.init()
    var fields = try Fields(node, "quantize")
    line = fields.line
    method = try fields.choice("method") ?? method
    bits = try fields.integer("bits") ?? bits
    if method == .spqr { granularity = .group(16) }
    if let size = try fields.integer("group_size") {
      granularity = size == -1 ? .channel : .group(size)
    }
    switch try fields.text("strategy") {
    case nil, "group": break
    case "channel": granularity = .channel
    case "tensor": granularity = .tensor
    case .some(let other):
      throw .badSetting(
        "strategy", value: other, expected: "group, channel or tensor",
        line: fields.line(of: "strategy"))
    }
    isSymmetric = try fields.flag("symmetric") ?? isSymmetric
    let size = try fields.text("target_size")
    let average = try fields.number("target_bits")
    if size != nil, average != nil {
      throw .contradiction("target_size and target_bits say the same thing twice", line: line)
    }
    if let size {
      guard let bytes = ByteCount.parse(size) else {
        throw .badSetting(
          "target_size", value: size, expected: "a size such as 300MB",
          line: fields.line(of: "target_size"))
      }
      allocation = BitAllocation(.modelBytes(bytes))
    }
    if let average { allocation = BitAllocation(.bitsPerWeight(average)) }
    let sensitivity: BitAllocation.Sensitivity? = try fields.choice("sensitivity")
    let candidates = try fields.texts("candidate_bits")
    if allocation == nil, sensitivity != nil || candidates != nil {
      throw .contradiction(
        "sensitivity and candidate_bits are for target_size or target_bits", line: line)
    }
    allocation?.sensitivity = sensitivity
    if let candidates { allocation?.candidates = candidates.map { Int($0) ?? 0 } }
    dampingFraction = try fields.number("dampening_frac") ?? dampingFraction
    blockSize = try fields.integer("block_size") ?? blockSize
    actOrder = try fields.choice("actorder") ?? actOrder
    activations = try fields.choice("activations")
    iterations = try fields.integer("iterations")
    usesStaticGroups = try fields.flag("static_groups") ?? usesStaticGroups
    if let text = try fields.text("smoothing_strength") {
      guard text == "search" || Double(text) != nil else {
        throw .badSetting(
          "smoothing_strength", value: text, expected: "0 to 1, or search",
          line: fields.line(of: "smoothing_strength"))
      }
      smoothingStrength = Double(text)
    }
    clipping = try fields.choice("clipping") ?? clipping
    indivisible = try fields.choice("indivisible") ?? indivisible
    format = try fields.choice("format") ?? format
    if format == .float8, bits == 4 { bits = 8 }
    if let text = try fields.text("blocks") {
      guard let range = Self.range(text) else {
        throw .badSetting(
          "blocks", value: text, expected: "first-last, such as 0-3",
          line: fields.line(of: "blocks"))
      }
      blocks = range
    }
    if let targets = try fields.targets("targets") { self.targets = targets }
    if let ignore = try fields.targets("ignore") { self.ignore = ignore }
    try fields.finish()
    try validate()
  }

  /// `0-3`, or `2` for one block.
  public static func range(_ text: String) -> ClosedRange<Int>? {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
    guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2,
      first <= last
    else { return nil }
    return first...last
  }
}
