import Distillation
import Yams

extension LossEntry {
  /// Reads a list of losses: `[{soft: {T: 2, weight: 0.7}}, {labels: {weight: 0.3}}]`.
  /// - Throws: `RecipeError` with the line of what is wrong.
  public static func list(yaml: String) throws(RecipeError) -> [LossEntry] {
    let node: Node?
    do {
      node = try Yams.compose(yaml: yaml)
    } catch {
      throw .malformed("the losses are not YAML: \(error)", line: nil)
    }
    guard let node else { throw .malformed("there are no losses", line: nil) }
    return try list(node)
  }

  static func list(_ node: Node) throws(RecipeError) -> [LossEntry] {
    guard let sequence = node.sequence, !sequence.isEmpty else {
      throw .malformed("losses should be a list with at least one entry", line: node.mark?.line)
    }
    var entries: [LossEntry] = []
    for item in sequence {
      if let name = item.scalar?.string {
        entries.append(try LossEntry(name, Node([] as [(Node, Node)]), line: item.mark?.line))
        continue
      }
      guard let mapping = item.mapping, mapping.count == 1, let pair = mapping.first,
        let name = pair.key.string
      else {
        throw .malformed(
          "a loss should be a name with its settings, such as soft: {T: 2}", line: item.mark?.line)
      }
      entries.append(try LossEntry(name, pair.value, line: pair.key.mark?.line))
    }
    return entries
  }

  private static let names = [
    "labels", "soft", "hidden", "attention", "minilm", "minilm_v2", "relation", "uld",
  ]

  private init(_ name: String, _ node: Node, line: Int?) throws(RecipeError) {
    var fields = try Fields(node, "the loss \(name)")
    let weight = try fields.number("weight") ?? 1
    guard weight >= 0 else {
      throw .badSetting("weight", value: "\(weight)", expected: "0 or more", line: line)
    }
    do {
      self.init(try Self.kind(name, &fields, line: line), weight: weight)
    } catch let error as DistillationError {
      throw .malformed(error.description, line: line)
    } catch let error as RecipeError {
      throw error
    } catch {
      throw .malformed("\(error)", line: line)
    }
    try fields.finish()
  }

  private static func kind(_ name: String, _ fields: inout Fields, line: Int?) throws -> Kind {
    func temperature() throws -> Double {
      let long = try fields.number("temperature")
      return try fields.number("T") ?? long ?? 1
    }
    switch name {
    case "labels": return .labels
    case "soft":
      let T = try temperature()
      return .soft(
        try DistillationDivergence(
          named: try fields.text("divergence") ?? "kl", beta: try fields.number("beta"),
          alpha: try fields.number("alpha"), start: try fields.number("start")), temperature: T)
    case "hidden", "feature":
      var settings = HiddenStateLoss.Settings()
      settings.measure = try fields.choice("measure") ?? settings.measure
      settings.layers = try layers(&fields) ?? settings.layers
      settings.comparesEmbeddings = try fields.flag("embeddings") ?? false
      settings.comparesFinal = try fields.flag("final") ?? false
      settings.sharesProjection = try fields.flag("shared_projection") ?? false
      return .hidden(settings)
    case "attention":
      var settings = AttentionMapLoss.Settings()
      settings.measure = try fields.choice("measure") ?? settings.measure
      settings.layers = try layers(&fields) ?? settings.layers
      settings.heads = try fields.choice("heads") ?? settings.heads
      return .attention(settings)
    case "minilm":
      return .miniLM(
        .init(
          studentLayer: try fields.integer("student_layer"),
          teacherLayer: try fields.integer("teacher_layer")))
    case "minilm_v2":
      return .miniLMv2(
        .init(
          relationHeads: try fields.integer("relation_heads"),
          studentLayer: try fields.integer("student_layer"),
          teacherLayer: try fields.integer("teacher_layer")))
    case "relation":
      var settings = RelationalLoss.Settings()
      settings.relation = try fields.choice("kind") ?? settings.relation
      settings.items = try fields.choice("between") ?? settings.items
      settings.atMost = try fields.integer("sample") ?? settings.atMost
      return .relation(settings)
    case "uld": return .sortedProbabilities(temperature: try temperature())
    default:
      throw RecipeError.badSetting(
        "loss", value: name, expected: "one of " + names.joined(separator: ", "), line: line)
    }
  }

  /// `uniform`, `last`, `middle`, or pairs `[[student, teacher], …]`.
  private static func layers(_ fields: inout Fields) throws(RecipeError) -> LayerMap? {
    guard let node = try fields.node("layers") else { return nil }
    switch node.scalar?.string {
    case "uniform": return .uniform
    case "last": return .last
    case "middle": return .middle
    default: break
    }
    let pairs = node.sequence?.compactMap { item -> LayerPair? in
      guard let pair = item.sequence, pair.count == 2, let s = pair[0].int, let t = pair[1].int
      else { return nil }
      return LayerPair(student: s, teacher: t)
    }
    guard let pairs, !pairs.isEmpty, pairs.count == node.sequence?.count else {
      throw .badSetting(
        "layers", value: node.scalar?.string ?? "a structure",
        expected: "uniform, last, middle or pairs such as [[0, 1], [1, 3]]", line: node.mark?.line)
    }
    return .list(pairs)
  }
}
