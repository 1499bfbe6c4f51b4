public import Codecs
public import Models
public import Tensors

/// A recipe resolved against one model: one row per tensor, with what will happen to it and why.
public struct Plan: Sendable {
  public enum Action: Sendable {
    /// Written as it is.
    case keep(reason: String)
    /// Left out: a buffer that no computation reads, or a second copy of a tied matrix.
    case drop(reason: String)
    case quantize(AffineGroups, QuantizeStage)
  }

  public struct Row: Sendable {
    public var tensor: ModelTensor
    /// Name and module in this checkpoint.
    public var name: String
    public var module: String
    public var dtype: DType
    public var action: Action
    public var bytesBefore: Int
    public var bytesAfter: Int
    /// What deserves a look: a changed group size, a consumer that cannot open the result.
    public var notes: [String] = []

    public var isQuantized: Bool {
      if case .quantize = action { true } else { false }
    }
  }

  public let recipe: Recipe
  public let modelPath: String
  public let modelType: String
  public let consumer: Consumer
  public private(set) var rows: [Row]
  /// Module of the head, and whether its matrix is the embedding's.
  package let headName: String
  package let hasTiedHead: Bool

  /// The plan as it was carried out.
  /// - Parameter bytes: what each row really takes.
  package func carriedOut(bytes: [Int]) -> Plan {
    precondition(bytes.count == rows.count)
    var plan = self
    for index in rows.indices { plan.rows[index].bytesAfter = bytes[index] }
    return plan
  }

  public var bytesBefore: Int { rows.reduce(0) { $0 + $1.bytesBefore } }
  public var bytesAfter: Int { rows.reduce(0) { $0 + $1.bytesAfter } }
  /// Weights of the model; a tied matrix counts once.
  public var parameters: Int {
    rows.reduce(0) { total, row in
      if case .drop = row.action { return total }
      return total + row.tensor.count
    }
  }
  /// Stored bits of all weights over all weights.
  public var bitsPerWeight: Double { Double(bytesAfter) * 8 / Double(max(parameters, 1)) }
  /// The same over the quantized matrices alone.
  public var bitsPerCompressedWeight: Double? {
    let quantized = rows.filter(\.isQuantized)
    guard !quantized.isEmpty else { return nil }
    let bytes = quantized.reduce(0) { $0 + $1.bytesAfter }
    return Double(bytes) * 8 / Double(quantized.reduce(0) { $0 + $1.tensor.count })
  }

  /// Most memory that any one step needs besides the program itself: a tensor as it is read, and
  /// its packed form before that is written.
  public var workingBytes: Int {
    rows.map { row in row.isQuantized ? row.bytesBefore + row.bytesAfter : row.bytesBefore }
      .max() ?? 0
  }

  /// Resolves a recipe.
  ///
  /// - Parameter source: the model's tensors, already checked against its configuration.
  /// - Throws: `RecipeError` for a target that matches nothing, a tensor matched twice or already
  ///   quantized, blocks that do not exist.
  package init(_ recipe: Recipe, for source: WeightSource, consumer: Consumer = .transformers)
    throws(RecipeError)
  {
    self.recipe = recipe
    self.consumer = consumer
    modelPath = source.checkpoint.path
    modelType = source.configuration.modelType
    headName = source.configuration.head.name
    hasTiedHead = source.configuration.head.isTied
    if recipe.hasForms, source.quantization?.transforms.isEmpty == false {
      throw .contradiction(
        "inputs that are rotated at run time go only with methods that compressed-tensors describes; "
          + "set online: false", line: nil)
    }
    let choice = try Self.choose(recipe, source)
    var rows: [Row] = []
    for (index, tensor) in source.configuration.tensors.enumerated() {
      let name = source.storedName(tensor.name)
      guard source.scheme(of: tensor) == nil, let info = source.checkpoint.info(name),
        info.blockType == nil
      else {
        throw .alreadyQuantized(tensor: name, path: modelPath)
      }
      var row = Row(
        tensor: tensor, name: name, module: source.storedName(tensor.module), dtype: info.dtype,
        action: .keep(reason: Self.reasonToKeep(tensor)), bytesBefore: info.byteCount,
        bytesAfter: info.byteCount)
      if let stage = choice[index] { try Self.quantize(&row, stage, consumer) }
      if row.isQuantized, row.tensor.block != nil, let rank = recipe.correctionRank {
        row.bytesAfter += 2 * rank * (tensor.outputs + tensor.inputs)
      }
      rows.append(row)
    }
    rows += Self.dropped(source)
    self.rows = rows
  }

  /// The stage that takes each tensor, by the tensor's index.
  private static func choose(_ recipe: Recipe, _ source: WeightSource) throws(RecipeError)
    -> [Int: QuantizeStage]
  {
    let tensors = source.configuration.tensors
    let model = source.checkpoint.path
    var choice: [Int: QuantizeStage] = [:]
    for case .quantize(let stage) in recipe.stages {
      if let blocks = stage.blocks, blocks.upperBound >= source.configuration.blocks.count {
        throw .blocksOutOfRange(
          "\(blocks.lowerBound)-\(blocks.upperBound)", count: source.configuration.blocks.count,
          line: stage.line)
      }
      func matches(_ target: Target, within blocks: ClosedRange<Int>?) throws(RecipeError) -> [Int]
      {
        let matcher = try target.matcher()
        let indices = tensors.indices.filter { index in
          let tensor = tensors[index]
          if let blocks, !(tensor.block.map(blocks.contains) ?? false) { return false }
          return tensor.isMatrix
            && matcher.matches(tensor, module: source.storedName(tensor.module))
        }
        guard !indices.isEmpty else {
          throw .noMatch(target: target.text, model: model, line: target.line ?? stage.line)
        }
        return indices
      }
      var ignored: Set<Int> = []
      for target in stage.ignore { ignored.formUnion(try matches(target, within: nil)) }
      var taken: Set<Int> = []
      for target in stage.targets { taken.formUnion(try matches(target, within: stage.blocks)) }
      for index in taken.subtracting(ignored).sorted() {
        let name = source.storedName(tensors[index].name)
        if let other = choice[index] {
          throw .matchedTwice(
            tensor: name, first: other.summary, second: stage.summary, line: stage.line)
        }
        guard tensors[index].role.canBeQuantized else {
          throw .cannotQuantize(
            tensor: name, reason: "a \(tensors[index].role.rawValue) is looked up, not multiplied",
            line: stage.line)
        }
        choice[index] = stage
      }
    }
    return choice
  }

  private static func quantize(_ row: inout Row, _ stage: QuantizeStage, _ consumer: Consumer)
    throws(RecipeError)
  {
    let inputs = row.tensor.inputs
    var granularity = stage.granularity
    if case .group(let size) = stage.granularity, inputs % size != 0 {
      switch stage.indivisible {
      case .skip:
        row.action = .keep(reason: "\(inputs) inputs are not a multiple of group size \(size)")
        return
      case .channel:
        granularity = .channel
      case .smaller:
        granularity =
          AffineGroups.dividingGroupSize(inputs: inputs, atMost: size).map { .group($0) }
          ?? .channel
      }
      let chosen =
        if case .group(let smaller) = granularity { "groups of \(smaller)" } else { "per channel" }
      row.notes.append("\(size) does not divide \(inputs) inputs: \(chosen)")
    }
    let codec: AffineGroups
    do throws(CodecError) {
      codec = try AffineGroups(
        bits: stage.bits, granularity: granularity, isSymmetric: stage.isSymmetric,
        scaleType: row.scaleType, layout: stage.format.layout)
    } catch {
      throw .contradiction("\(row.name): \(error)", line: stage.line)
    }
    if let floats = stage.format.floats {
      guard let codec = stage.floatCodec(floats, scaleType: row.scaleType) else {
        throw .contradiction("\(row.name): no such float format", line: stage.line)
      }
      if case .group(let size) = codec.granularity, inputs % size != 0 {
        row.action = .keep(reason: "\(inputs) inputs are not a multiple of group size \(size)")
        return
      }
    }
    if stage.format == .nf4, row.tensor.block == nil {
      row.action = .keep(reason: "nf4 is for matrices inside the blocks")
      return
    }
    row.action = .quantize(codec, stage)
    row.bytesAfter = row.outputs.reduce(0) { $0 + $1.byteCount }
    if row.tensor.block != nil,
      let bits = stage.expectedBits(outputs: row.tensor.outputs, inputs: row.tensor.inputs)
    {
      row.bytesAfter = Int(bits * Double(row.tensor.count) / 8)
      row.notes.append("stored in a form of its own, which Pare opens; the size is about")
    }
    if stage.method.needsCalibration || stage.method.hasFormOfItsOwn, row.tensor.block == nil {
      row.notes.append("outside the blocks inputs are not measured: rounded to nearest")
    }
    row.notes += consumer.objections(to: codec, row.tensor)
  }

  private static func reasonToKeep(_ tensor: ModelTensor) -> String {
    switch tensor.role {
    case .norm: "norm"
    case .bias: "bias"
    case .positionEmbedding: "position table"
    default: "not targeted"
    }
  }

  private static func dropped(_ source: WeightSource) -> [Row] {
    let declared = Set(source.configuration.tensors.map { source.storedName($0.name) })
    return source.checkpoint.names.filter { !declared.contains($0) }.compactMap { name in
      guard let info = source.checkpoint.info(name) else { return nil }
      let isHead = name == "\(source.configuration.head.name).weight"
      return Row(
        tensor: ModelTensor(
          name: name, shape: info.shape, role: isHead ? .head : .bias, block: nil),
        name: name, module: name, dtype: info.dtype,
        action: .drop(reason: isHead ? "tied to the embedding" : "a buffer nothing reads"),
        bytesBefore: info.byteCount, bytesAfter: 0)
    }
  }
}
