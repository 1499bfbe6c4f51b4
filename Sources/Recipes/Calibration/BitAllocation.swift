import Calibration
import Checkpoints
import Codecs
import Models
import Quantization
import Search
import Tensors
public import Text

/// How many bits each matrix gets, where a recipe says what the whole may take.
public struct BitAllocation: Sendable, Equatable {
  /// The size that stored matrices may have together.
  public enum Budget: Sendable, Equatable {
    /// Bytes of all the model's tensors.
    case modelBytes(Int)
    /// Bits per weight of the quantized matrices, scales and zero points included.
    case bitsPerWeight(Double)
  }

  /// What quantizing one matrix costs.
  public enum Sensitivity: String, Sendable, CaseIterable {
    /// KL divergence when it alone is quantized.
    case kl
    /// Half its change squared, weighted by the Fisher information.
    case fisher
  }

  public var budget: Budget
  /// Nil: kl up to 100 million weights, fisher above.
  public var sensitivity: Sensitivity?
  public var candidates = [2, 3, 4, 5, 6, 8]

  public init(_ budget: Budget) { self.budget = budget }
}

extension Recipe {
  /// Whether the bits of some matrices are still to be found.
  public var needsAllocation: Bool {
    stages.contains { if case .quantize(let stage) = $0 { stage.allocation != nil } else { false } }
  }

  /// The recipe with the bits of every matrix found, and what was measured for it.
  ///
  /// Bits are judged by rounding to nearest, whatever method quantizes in the end. The result is never
  /// worse on the samples than the best uniform setting that fits: both are measured whole, and the
  /// better one is taken.
  ///
  /// - Throws: `RecipeError.contradiction` where not even the fewest bits fit; as `Compression`.
  public func allocatingBits(
    model path: String, consumer: Consumer = .transformers,
    onProgress: (Compression.Progress) throws -> Void = { _ in }
  ) throws -> (recipe: Recipe, report: JSON) {
    var resolved = self
    var reports: [JSON] = []
    resolved.stages = []
    for stage in stages {
      guard case .quantize(let quantize) = stage, let allocation = quantize.allocation else {
        resolved.stages.append(stage)
        continue
      }
      let search = try BitSearch(
        self, quantize, allocation, model: path, consumer: consumer, onProgress)
      let (stages, report) = try search.run(onProgress)
      resolved.stages += stages.map { .quantize($0) }
      reports.append(report)
    }
    return (resolved, .array(reports))
  }
}

/// The search of one stage.
private struct BitSearch {
  let stage: QuantizeStage
  let allocation: BitAllocation
  let model: LanguageModel
  let set: CalibrationSet
  /// By candidate: the rows that would be quantized.
  let rows: [[Plan.Row]]
  let candidates: [Int]
  let fixedBytes: Int
  let sensitivity: BitAllocation.Sensitivity

  init(
    _ recipe: Recipe, _ stage: QuantizeStage, _ allocation: BitAllocation, model path: String,
    consumer: Consumer, _ onProgress: (Compression.Progress) throws -> Void
  ) throws {
    self.stage = stage
    self.allocation = allocation
    candidates = allocation.candidates.sorted()
    let checkpoint = try Checkpoint.openModel(path)
    let source = try WeightSource(checkpoint)
    model = try LanguageModel(checkpoint: checkpoint)
    var fixed = 0
    rows = try candidates.map { bits in
      var one = recipe
      one.stages = recipe.stages.map { other in
        guard case .quantize(var quantize) = other, quantize == stage else { return other }
        quantize.bits = bits
        quantize.allocation = nil
        return .quantize(quantize)
      }
      let plan = try Plan(one, for: source, consumer: consumer)
      let mine = plan.rows.filter { row in
        if case .quantize(_, let by) = row.action {
          by.line == stage.line && by.bits == bits
        } else {
          false
        }
      }
      fixed = plan.bytesAfter - mine.reduce(0) { $0 + $1.bytesAfter }
      return mine
    }
    fixedBytes = fixed
    let weights = rows.first?.reduce(0) { $0 + $1.tensor.count } ?? 0
    sensitivity = allocation.sensitivity ?? (weights <= 100_000_000 ? .kl : .fisher)
    set = try recipe.calibration.open(model, seed: recipe.seed) { tokens, wanted in
      try onProgress(
        .init(
          what: "the model writes its calibration text", done: tokens, total: wanted,
          isOfBytes: false))
    }
  }

  private var weights: Int { rows[0].reduce(0) { $0 + $1.tensor.count } }

  private var budget: Int {
    switch allocation.budget {
    case .modelBytes(let bytes): bytes - fixedBytes
    case .bitsPerWeight(let bits): Int(bits * Double(weights) / 8)
    }
  }

  func run(_ onProgress: (Compression.Progress) throws -> Void) throws -> ([QuantizeStage], JSON) {
    let measured = try DivergenceSensitivity(model, set)
    let costs = try costs(measured, onProgress)
    let items = rows[0].indices.map { item in
      candidates.indices.map { candidate in
        Knapsack.Option(size: rows[candidate][item].bytesAfter, cost: costs[item][candidate])
      }
    }
    guard let choice = Knapsack.solve(items, budget: budget) else {
      let least = rows[0].reduce(0) { $0 + $1.bytesAfter } + fixedBytes
      let bits = Double(rows[0].reduce(0) { $0 + $1.bytesAfter }) * 8 / Double(weights)
      throw RecipeError.contradiction(
        "not even \(candidates[0]) bits for every matrix fit: the least are \(least) bytes in all, "
          + "\((bits * 100).rounded() / 100) bits per weight", line: stage.line)
    }
    try onProgress(
      .init(what: "comparing with uniform bits", done: 1, total: 1, isOfBytes: false))
    let found = measured.divergence(of: try quantized(choice))
    var uniform: (bits: Int, kl: Double)?
    for candidate in candidates.indices {
      guard rows[candidate].reduce(0, { $0 + $1.bytesAfter }) <= budget else { continue }
      let kl = measured.divergence(of: try quantized(choice.map { _ in candidate }))
      if kl < uniform?.kl ?? .infinity { uniform = (candidates[candidate], kl) }
    }
    let takesUniform = uniform.map { $0.kl < found } ?? false
    let bits = choice.map { takesUniform ? uniform?.bits ?? 0 : candidates[$0] }
    return (stages(bits), report(bits, found, uniform, costs))
  }

  private func costs(
    _ measured: DivergenceSensitivity, _ onProgress: (Compression.Progress) throws -> Void
  ) throws -> [[Double]] {
    let fisher = try sensitivity == .fisher ? FisherSensitivity(model, set) : nil
    var costs: [[Double]] = []
    for item in rows[0].indices {
      try onProgress(
        .init(
          what: "sensitivity of \(rows[0][item].name)", done: item, total: rows[0].count,
          isOfBytes: false))
      costs.append(
        try candidates.indices.map { candidate in
          let row = rows[candidate][item]
          let original = try weight(row)
          let changed = try rounded(row, original)
          if let cost = fisher?.cost(row.tensor.name, of: changed, for: original) { return cost }
          guard let block = row.tensor.block else {
            return measured.divergence(of: replacing([row.tensor.module: changed]))
          }
          var other = model.blocks[block]
          other.updateLinears { linear in
            if linear.configuration.name == row.tensor.module { linear.weight = changed }
          }
          return measured.divergence([block: other])
        })
      // More bits never cost more: what says otherwise is noise.
      for candidate in candidates.indices.dropFirst() {
        costs[item][candidate] = min(costs[item][candidate], costs[item][candidate - 1])
      }
    }
    return costs
  }

  private func weight(_ row: Plan.Row) throws -> any Weight {
    var found: (any Weight)?
    _ = model.mapped(
      matrix: { (declaration: ModelTensor, weight: any Weight) -> any Weight in
        if declaration.name == row.tensor.name { found = weight }
        return weight
      }, vector: { (_: ModelTensor, tensor: Tensor) -> Tensor in tensor })
    guard let found else { preconditionFailure("\(row.name) is not in the model") }
    return found
  }

  private func rounded(_ row: Plan.Row, _ weight: any Weight) throws -> any Weight {
    guard case .quantize(let codec, let stage) = row.action else { return weight }
    do throws(CompressionError) {
      return try RoundToNearest(codec: codec, clipping: stage.rounding)
        .compress(weight.dequantized()).weight
    } catch {
      throw RecipeError.badTensor(
        row.name, path: model.checkpoint.path, reason: error.description)
    }
  }

  private func quantized(_ choice: [Int]) throws -> LanguageModel {
    var replaced: [String: any Weight] = [:]
    for (item, candidate) in choice.enumerated() {
      let row = rows[candidate][item]
      replaced[row.tensor.module] = try rounded(row, try weight(row))
    }
    return replacing(replaced)
  }

  private func replacing(_ weights: [String: any Weight]) -> LanguageModel {
    model.mapped(
      matrix: { (declaration: ModelTensor, weight: any Weight) -> any Weight in
        weights[declaration.module] ?? weight
      }, vector: { (_: ModelTensor, tensor: Tensor) -> Tensor in tensor })
  }

  /// One stage for each number of bits that is used.
  private func stages(_ bits: [Int]) -> [QuantizeStage] {
    Set(bits).sorted().map { count in
      var part = stage
      part.allocation = nil
      part.bits = count
      part.targets = zip(rows[0], bits).filter { $0.1 == count }.map { Target($0.0.module) }
      part.ignore = []
      part.blocks = nil
      return part
    }
  }

  private func report(
    _ bits: [Int], _ found: Double, _ uniform: (bits: Int, kl: Double)?, _ costs: [[Double]]
  ) -> JSON {
    [
      "sensitivity": JSON(sensitivity.rawValue), "kl": JSON(min(found, uniform?.kl ?? found)),
      "kl_knapsack": JSON(found),
      "kl_best_uniform": uniform.map { JSON($0.kl) } ?? .null,
      "best_uniform_bits": uniform.map { JSON($0.bits) } ?? .null,
      "protocol":
        "KL(original || rounded to nearest), mean over positions of the calibration samples, nats",
      "tensors": .array(
        zip(rows[0], bits).enumerated().map { item, pair in
          [
            "name": JSON(pair.0.name), "bits": JSON(pair.1),
            "costs": .object(
              JSONObject(zip(candidates, costs[item]).map { ("\($0)", JSON($1)) })),
          ]
        }),
    ]
  }
}
