import Checkpoints
import Codecs
package import Models
import Runtime
package import Tensors
import Training

/// The one traversal of a model for calibration: block by block, each treated on the inputs that the
/// treated blocks before it give, and done when it lies on the disk.
///
/// Inside a block the stages come one after another (query-key-value, attention output, feed-forward
/// input and output): what flows into a stage's matrices is known once those before are compressed,
/// so each sample passes each matrix once. A run that was killed reads the finished blocks, passes the
/// samples through them and goes on; it ends in the same bytes.
package struct BlockWalk {
  package struct Settings: Sendable {
    /// Where finished blocks, and activations past the limit, lie.
    package var folder: String
    /// Of everything that decides the numbers: model, samples, recipe, version.
    package var identity: String
    /// Bytes that may be resident; nil keeps all activations in memory.
    package var memoryLimit: Int?
    package var resumes = false
    package var overwrite = false

    package init(folder: String, identity: String) {
      self.folder = folder
      self.identity = identity
    }
  }

  /// What is being done, for a progress line.
  package struct Progress: Sendable {
    package var block: Int
    package var blocks: Int
    package var what: String
    /// Share of all work that is done.
    package var share: Double
  }

  let model: LanguageModel
  let batches: [CalibrationSet.Batch]
  let treatment: BlockTreatment
  let settings: Settings
  private let folding: FeedFolding

  /// - Parameters:
  ///   - model: dense; its weights stay in the file until their block's turn.
  ///   - storedType: of a tensor by its declared name.
  /// - Throws: `CalibrationError` for settings that cannot work, `ModelError` for texts that do not fit.
  package init(
    _ model: LanguageModel, _ set: CalibrationSet, treatment: BlockTreatment, settings: Settings,
    storedType: @escaping (String) -> DType
  ) throws {
    self.model = model.detached
    batches = set.batches
    self.treatment = treatment
    self.settings = settings
    folding = FeedFolding(storedType: storedType)
    for batch in batches { try model.check(batch.tokens, batch.segments) }
    if let limit = settings.memoryLimit {
      for (index, block) in model.blocks.enumerated() {
        let needed = workingBytes(block)
        guard needed <= limit else {
          throw CalibrationError.memoryTooSmall(needed: needed, limit: limit, block: index)
        }
      }
    }
  }

  /// Treats every block that is not yet done.
  ///
  /// - Parameter onProgress: may throw to stop; finished blocks stay.
  /// - Returns: where each block's result lies.
  package func run(onProgress: (Progress) throws -> Void = { _ in }) throws -> [BlockFile] {
    let record = try WalkRecord(settings)
    var files = try record.finishedBlocks(model)
    var states = try Stream(self, name: "inputs", share: 2)
    // Blocks that look back at the uncompressed model need its activations from the first on.
    let carriesOriginal = model.blocks.contains { treatment.needsOriginal($0) }
    var original = carriesOriginal ? try Stream(self, name: "original", share: 2) : nil
    let isDone = files.count == model.blocks.count
    for (index, block) in model.blocks.enumerated() where !isDone {
      func report(_ what: String, _ share: Double) throws {
        try onProgress(
          Progress(
            block: index, blocks: model.blocks.count, what: what,
            share: (Double(index) + share) / Double(model.blocks.count)))
      }
      let isLast = index == model.blocks.count - 1
      if index < files.count {
        try report("passing the samples through a finished block", 0)
        let treated = try files[index].block(
          replacing: block, activations: treatment.activations)
        try states.pass(treated, index)
        try original?.pass(block, index)
        continue
      }
      let treated = try treat(block, index, &states, &original, isLast: isLast, report)
      files.append(try record.write(treated))
      for linear in block.linears { linear.weight.giveBack() }
      try model.checkpoint.checkIntact()
    }
    return files
  }

  private func treat(
    _ block: Block, _ index: Int, _ states: inout Stream, _ original: inout Stream?, isLast: Bool,
    _ report: (String, Double) throws -> Void
  ) throws -> TreatedBlock {
    let clock = ContinuousClock()
    let began = clock.now
    var treated = TreatedBlock(index: index, block: block)
    try scale(&treated, states, report)
    if treatment.blockMethods.isEmpty {
      try compressStages(&treated, of: block, &states, &original, isLast: isLast, report)
    } else {
      try compressWhole(&treated, of: block, &states, &original, isLast: isLast, report)
    }
    treated.seconds = (clock.now - began).inSeconds
    return treated
  }
}

// MARK: - Factors between channels

extension BlockWalk {
  private func scale(
    _ treated: inout TreatedBlock, _ states: Stream, _ report: (String, Double) throws -> Void
  ) throws {
    guard !treatment.scalings.isEmpty else { return }
    let needs = treatment.scalings.reduce(into: StatisticsNeeds()) { $0.formUnion($1.needs) }
    let configuration = treated.block.configuration
    let feeds = configuration.structure.feeds
    var sums = feeds.map { InputStatisticsSum(inputs: $0.consumers[0].inputs, needs: needs) }
    let stages: [Block.Stage] = [
      .queryKeyValue, .attentionOutput, .feedForwardInput, .feedForwardOutput,
    ]
    for batch in batches.indices {
      try report("measuring channels", 0.1 * Double(batch) / Double(batches.count))
      var state = treated.block.begin(try states.input(batch))
      let context = states.context(batch, treated.index)
      for stage in Block.Stage.allCases {
        if let feed = stages.firstIndex(of: stage),
          let linear = treated.block.linears(of: stage).first
        {
          sums[feed].add(linear.transformed(state.input))
        }
        if stage != .feedForwardOutput { treated.block.run(stage, &state, context) }
      }
    }
    for (feed, sum) in zip(feeds, sums) {
      var statistics = sum.finish()
      for scaling in treatment.scalings {
        guard FeedFolding.obstacle(feed, configuration) == nil else { continue }
        let consumers = treated.block.linears.filter { linear in
          feed.consumers.contains { $0.name == linear.configuration.name }
        }
        // Behind a rotation at run time no channel of the source stands alone.
        guard consumers.allSatisfy({ $0.inputTransform == nil }) else { continue }
        let matrices = consumers.map {
          (weight: $0.weight.dequantized(), codec: treatment.codec($0.configuration))
        }
        guard matrices.contains(where: { $0.codec != nil }) else { continue }
        let s: [Float]?
        do throws(CompressionError) {
          s = try scaling.factors(
            of: matrices, statistics, units: FeedFolding.units(of: feed))
        } catch {
          throw CalibrationError.badTensor(
            feed.consumers[0].name, reason: error.description)
        }
        guard let s else { continue }
        treated.changed.formUnion(folding.fold(s, feed, into: &treated.block))
        statistics = statistics.scaled(by: s.map { 1 / $0 })
      }
    }
    sums = []
    // What no method rounds later must already be what a file will hold.
    treated.block.updateLinears { linear in
      let name = "\(linear.configuration.name).weight"
      guard treated.changed.contains(name), treatment.method(linear.configuration) == nil,
        treatment.codec(linear.configuration) == nil
      else { return }
      linear.weight = folding.rounded(linear.weight, name)
    }
  }
}

// MARK: - One matrix after another

extension BlockWalk {
  private func compressStages(
    _ treated: inout TreatedBlock, of block: Block, _ states: inout Stream,
    _ original: inout Stream?, isLast: Bool, _ report: (String, Double) throws -> Void
  ) throws {
    try states.begin(treated.block)
    try original?.begin(block)
    for (number, stage) in Block.Stage.allCases.enumerated() {
      let share = 0.1 + 0.9 * Double(number) / Double(Block.Stage.allCases.count)
      let linears = treated.block.linears(of: stage).filter { isPending($0, treated) }
      let needs = treatment.needs(linears)
      let inputs = linears.first?.configuration.inputs ?? 0
      let sum = needs.isEmpty ? nil : InputStatisticsSum(inputs: inputs, needs: needs)
      if let sum, let linear = linears.first {
        for batch in batches.indices {
          try report("measuring the inputs of \(stage.name)", share)
          let x = linear.transformed(try states.state(batch).input)
          guard x.isFinite else {
            throw CalibrationError.notFinite(block: treated.index, stage: stage.name)
          }
          sum.add(x, original: try original.map { linear.transformed(try $0.state(batch).input) })
        }
      }
      let statistics = sum?.finish() ?? .none(inputs: inputs)
      try report("compressing \(stage.name)", share)
      try compress(linears, statistics, &treated)
      // Nothing reads what the last stage of the last block would give.
      guard !(isLast && stage == .feedForwardOutput) else { break }
      for batch in batches.indices {
        try report("running \(stage.name)", share)
        try states.run(stage, treated.block, batch, treated.index)
        try original?.run(stage, block, batch, treated.index)
      }
    }
  }

  /// Matrices of one stage, those of equal methods together.
  private func compress(
    _ linears: [Linear], _ statistics: InputStatistics, _ treated: inout TreatedBlock
  ) throws {
    var left = linears
    while let first = left.first, let method = treatment.method(first.configuration) {
      let alike = left.filter {
        $0.configuration.name == first.configuration.name
          || isAlike(method, treatment.method($0.configuration))
      }
      let names = alike.map(\.configuration.name)
      left.removeAll { names.contains($0.configuration.name) }
      let matrices = alike.map { linear -> Tensor in
        if let dense = linear.weight as? DenseWeight { return dense.tensor }
        return linear.weight.dequantized()
      }
      let clock = ContinuousClock()
      let start = clock.now
      do throws(CompressionError) {
        let results = try method.compress(matrices, sharing: statistics)
        for (index, name) in names.enumerated() {
          var result = results[index]
          if let correction = treatment.correction {
            result = try correction.correct(matrices[index], result, statistics)
          }
          treated.take(result, for: name, seconds: 0)
          if let scheme = treatment.activations(alike[index].configuration) {
            try treated.roundInput(of: name, scheme, statistics)
          }
        }
      } catch {
        // Zeros and worse appear where a file was cut short while it was read.
        try model.checkpoint.checkIntact()
        throw CalibrationError.badTensor(
          names.map { "\($0).weight" }.joined(separator: ", "), reason: error.description)
      }
      let share = (clock.now - start).inSeconds / Double(names.count)
      for index in treated.matrices.indices where names.contains(treated.matrices[index].module) {
        treated.matrices[index].seconds = share
      }
    }
  }

  private func isAlike(_ a: any WeightMethod, _ b: (any WeightMethod)?) -> Bool {
    guard let a = a as? any Hashable, let b = b as? any Hashable else { return false }
    return AnyHashable(a) == AnyHashable(b)
  }
}

extension TreatedBlock {
  /// - Parameter statistics: of the input, where its grid is stored.
  mutating func roundInput(
    of module: String, _ scheme: ActivationScheme, _ statistics: InputStatistics
  ) throws(CompressionError) {
    let quantizer: ActivationQuantizer
    if scheme.isStatic {
      let largest = statistics.largestMagnitude.max() ?? 0
      do throws(CodecError) {
        quantizer = try ActivationQuantizer(static: scheme, range: -largest...largest)
      } catch {
        throw CompressionError(error)
      }
    } else {
      quantizer = ActivationQuantizer(dynamic: scheme)
    }
    block.updateLinears { linear in
      if linear.configuration.name == module { linear.inputQuantizer = quantizer }
    }
  }

  mutating func take(_ result: CompressedWeight, for module: String, seconds: Double) {
    block.updateLinears { linear in
      if linear.configuration.name == module { linear.weight = result.weight }
    }
    changed.remove("\(module).weight")
    matrices.append(
      Matrix(
        module: module, error: result.error, relativeOutputError: result.relativeOutputError,
        seconds: seconds, notes: result.notes))
  }
}

// MARK: - Methods that see a block whole

extension BlockWalk {
  private func compressWhole(
    _ treated: inout TreatedBlock, of block: Block, _ states: inout Stream,
    _ original: inout Stream?, isLast: Bool, _ report: (String, Double) throws -> Void
  ) throws {
    try original?.pass(block, treated.index)
    let targets = original
    for method in treatment.blockMethods {
      try report("learning \(method.name)", 0.2)
      let codec = treatment.codec
      let (index, inputs) = (treated.index, states)
      let problem = BlockProblem(
        block: treated.block, index: index, batches: batches.count,
        seed: Mixer.mixed(treatment.seed, index), codec: { codec($0) },
        context: { inputs.context($0, index) }, input: { try inputs.input($0) },
        target: { batch in
          guard let targets else {
            preconditionFailure("targets are for methods that need them")
          }
          return try targets.input(batch)
        })
      let before = Dictionary(
        uniqueKeysWithValues: treated.block.linears.map { ($0.configuration.name, $0.weight) })
      let solution: BlockSolution
      do {
        solution = try method.compress(problem)
      } catch let error as CompressionError {
        throw CalibrationError.badTensor(
          block.configuration.name, reason: error.description)
      }
      treated.block = solution.block
      treated.loss = (treated.loss?.before ?? solution.loss?.before).flatMap { before in
        solution.loss.map { (before, $0.after) }
      }
      for linear in solution.block.linears {
        let module = linear.configuration.name
        guard let result = solution.errors[module] else { continue }
        treated.take(result, for: module, seconds: 0)
        if let scheme = treatment.activations(linear.configuration) {
          precondition(!scheme.isStatic, "block methods measure no ranges of inputs")
          try treated.roundInput(of: module, scheme, .none(inputs: linear.configuration.inputs))
        }
      }
      // What a method leaves dense may have moved all the same.
      for linear in solution.block.linears where solution.errors[linear.configuration.name] == nil {
        if !(before[linear.configuration.name].map { $0.isSame(as: linear.weight) } ?? false) {
          treated.changed.insert("\(linear.configuration.name).weight")
          if linear.bias != nil { treated.changed.insert("\(linear.configuration.name).bias") }
        }
      }
      treated.block.updateNorms { norm in
        for declaration in norm.configuration.tensors(block: index) {
          treated.changed.insert(declaration.name)
        }
      }
    }
    // What a method only prepared is compressed as without it.
    if treated.block.linears.contains(where: { isPending($0, treated) }) {
      var none: Stream?
      try compressStages(&treated, of: block, &states, &none, isLast: isLast, report)
    } else if !isLast {
      try states.pass(treated.block, treated.index)
    }
  }

  private func isPending(_ linear: Linear, _ treated: TreatedBlock) -> Bool {
    treatment.method(linear.configuration) != nil
      && !treated.matrices.contains { $0.module == linear.configuration.name }
  }
}

extension Weight {
  fileprivate func isSame(as other: any Weight) -> Bool {
    switch (self, other) {
    case (let a as DenseWeight, let b as DenseWeight): a.tensor.rawPointer == b.tensor.rawPointer
    case (let a as TransposedWeight, let b as TransposedWeight):
      a.tensor.rawPointer == b.tensor.rawPointer
    default: false
    }
  }
}

extension Block.Stage {
  /// In words for progress and errors.
  var name: String {
    switch self {
    case .queryKeyValue: "query, key and value"
    case .attention: "attention"
    case .attentionOutput: "the attention output"
    case .feedForwardInput: "the feed-forward input"
    case .feedForwardOutput: "the feed-forward output"
    }
  }
}
