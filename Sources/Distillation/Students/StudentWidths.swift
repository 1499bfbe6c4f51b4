import Models
import Text

/// Which channels, heads and neurons of each tensor of its teacher a narrower student keeps.
struct StudentWidths: Sendable {
  struct Cut: Sendable {
    var rows: [Int]?
    var columns: [Int]?
  }

  /// By the teacher's names.
  private(set) var cuts: [String: Cut] = [:]
  private let hidden: Int
  private let heads: Int
  private let keyValueHeads: Int
  private let headDim: Int
  private let intermediate: Int

  /// - Returns: nil where all widths are the teacher's.
  init?(
    _ teacher: LanguageModel, shape: StudentShape, importance: StudentImportance?
  ) throws(DistillationError) {
    let path = teacher.checkpoint.path
    let configuration = teacher.configuration
    guard shape.statesWidth, let first = configuration.blocks.first else { return nil }
    let attention = first.attention
    hidden = shape.hidden ?? configuration.hiddenSize
    intermediate = shape.intermediate ?? first.feedForward.intermediateSize
    heads = shape.heads ?? attention.heads
    let isUngrouped = attention.heads == attention.keyValueHeads
    keyValueHeads = shape.keyValueHeads ?? (isUngrouped ? heads : attention.keyValueHeads)
    headDim = attention.headDim
    let sizes = [
      ("hidden", hidden, configuration.hiddenSize), ("heads", heads, attention.heads),
      ("keyValueHeads", keyValueHeads, attention.keyValueHeads),
      ("intermediate", intermediate, first.feedForward.intermediateSize),
    ]
    if sizes.allSatisfy({ $0.1 == $0.2 }) { return nil }
    guard StudentCut.widthFamilies.contains(configuration.modelType) else {
      throw .cannotShape(
        path: path,
        problem: "widths of \(configuration.modelType) models cannot be cut, only layers")
    }
    for (name, wanted, whole) in sizes where wanted > whole {
      throw .badShape(
        shape.description, problem: "\(name) is more than the teacher's \(whole)")
    }
    guard heads % keyValueHeads == 0 else {
      throw .badShape(
        shape.description,
        problem: "\(heads) heads are no multiple of \(keyValueHeads) keyValueHeads")
    }
    guard heads / keyValueHeads <= attention.heads / attention.keyValueHeads else {
      throw .badShape(
        shape.description,
        problem: "the teacher has \(attention.heads / attention.keyValueHeads) heads for each of "
          + "its keyValueHeads, the student cannot have \(heads / keyValueHeads)")
    }
    guard let importance, importance.heads.count == configuration.blocks.count,
      importance.hidden.count == configuration.hiddenSize
    else {
      throw .badSetting(
        "the sample that widths are chosen by", value: "absent", expected: "some text")
    }
    choose(configuration, importance)
  }

  func write(to config: inout StudentConfig) throws(DistillationError) {
    try config.set("hidden", hidden)
    try config.set("heads", heads)
    try config.set("intermediate", intermediate)
    config.set("num_key_value_heads", JSON(keyValueHeads))
    config.set("head_dim", JSON(headDim))
  }

  private mutating func choose(
    _ configuration: ModelConfiguration, _ importance: StudentImportance
  ) {
    let channels = Importance.best(hidden, of: importance.hidden)
    func narrow(_ norm: NormConfiguration?) {
      if let norm { cuts["\(norm.name).weight"] = Cut(rows: channels) }
    }
    cuts["\(configuration.embedding.name).weight"] = Cut(columns: channels)
    cuts["\(configuration.head.name).weight"] = Cut(columns: channels)
    narrow(configuration.finalNorm)
    for (index, block) in configuration.blocks.enumerated() {
      for norms in [block.attentionNorms, block.feedForwardNorms] {
        for norm in [norms.before, norms.output, norms.after] { narrow(norm) }
      }
      for linear in block.attention.inputs + block.feedForward.inputs {
        cuts["\(linear.name).weight", default: Cut()].columns = channels
      }
      for linear in [block.attention.output, block.feedForward.down] {
        keepRows(of: linear, channels)
      }
      let structure = block.structure
      let groups = Groups(
        structure, importance.heads[index], keyValueHeads: keyValueHeads,
        perGroup: heads / keyValueHeads)
      let neurons = Importance.best(intermediate, of: importance.intermediate[index])
      for dimension in structure.dimensions {
        for axis in dimension.axes {
          let kept =
            dimension.name == "intermediate"
            ? neurons.flatMap { axis.elements($0) } : groups.elements(axis, headDim: headDim)
          switch axis.side {
          case .outputs: keepRows(of: axis.linear, kept)
          case .inputs: cuts["\(axis.linear.name).weight", default: Cut()].columns = kept
          }
        }
      }
    }
  }

  private mutating func keepRows(of linear: LinearConfiguration, _ rows: [Int]) {
    cuts["\(linear.name).weight", default: Cut()].rows = rows
    if linear.hasBias { cuts["\(linear.name).bias"] = Cut(rows: rows) }
  }
}

/// The key-value heads that are kept, and of each the query heads.
private struct Groups {
  var groups: [Int]
  /// Of each kept group, places within it.
  var heads: [[Int]]

  /// - Parameter scores: of query heads.
  init(_ structure: BlockStructure, _ scores: [Double], keyValueHeads: Int, perGroup: Int) {
    let size = structure.headsPerGroup
    let ofGroup = (0..<structure.keyValueHeads).map { group in
      Array(scores[(group * size)..<((group + 1) * size)])
    }
    groups = Importance.best(keyValueHeads, of: ofGroup.map { $0.reduce(0, +) })
    heads = groups.map { Importance.best(perGroup, of: ofGroup[$0]) }
  }

  func elements(_ axis: BlockStructure.Axis, headDim: Int) -> [Int] {
    zip(groups, heads).flatMap { group, heads in
      let elements = axis.elements(group)
      // An axis of keys or values has one head for each group.
      guard elements.count > headDim else { return Array(elements) }
      return heads.flatMap { elements.dropFirst($0 * headDim).prefix(headDim) }
    }
  }
}

extension BlockStructure.Axis {
  /// Where a unit of the dimension lies along the axis.
  fileprivate func elements(_ unit: Int) -> Range<Int> {
    let start = offset + unit * stride
    return start..<(start + elementsPerUnit)
  }
}
