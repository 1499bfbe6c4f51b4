import CKernels
package import Models
import Tensors
package import Training

/// A model that teaches its own shallow parts: 'Be your own teacher' (Zhang et al. 2019,
/// arXiv:1905.08094, section 3). Outputs of some blocks go through the final norm and the head as
/// if they were the last; each such exit learns the labels, the deepest exit's predictions and its
/// states.
///
///     loss = labels(deepest) + Σ_exits [ (1 − α) labels + α soft(deepest) + λ |h − h_deepest|² ]
///
/// The deepest exit is not pulled towards the others: as teacher it is a constant.
package struct SelfExits: Objective {
  /// Blocks whose outputs are exits, without the last.
  package let exits: [Int]
  package let soft: any LogitLoss
  /// α
  package let softShare: Double
  /// λ, on the mean over the states' elements.
  package let hintWeight: Double

  /// - Parameters:
  ///   - exits: nil for those that cut the model in three equal parts.
  ///   - soft: between an exit and the deepest.
  ///   - softShare, hintWeight: the published code uses 0.3 and a hint of 0.03.
  /// - Throws: `badSetting` for blocks that are not before the last, or shares out of range.
  package init(
    of model: LanguageModel, exits: [Int]? = nil, soft: any LogitLoss, softShare: Double = 0.3,
    hintWeight: Double = 0.03
  ) throws(DistillationError) {
    let count = model.blocks.count
    guard count > 1 else {
      throw .badSetting("the number of blocks", value: "\(count)", expected: "at least 2 for exits")
    }
    let defaults = Set([count / 3, 2 * count / 3].filter { $0 >= 1 }.map { $0 - 1 })
    let exits = (exits ?? Array(defaults)).sorted()
    guard !exits.isEmpty, Set(exits).count == exits.count,
      exits.allSatisfy({ $0 >= 0 && $0 < count - 1 })
    else {
      throw .badSetting(
        "the list of exits", value: "\(exits)",
        expected:
          "different blocks from 0 to \(count - 2), since the last of \(count) is the teacher")
    }
    guard (0...1).contains(softShare) else {
      throw .badSetting(
        "the share of the deepest exit's predictions", value: "\(softShare)",
        expected: "from 0 to 1")
    }
    guard hintWeight >= 0, hintWeight.isFinite else {
      throw .badSetting("the weight of hints", value: "\(hintWeight)", expected: "at least 0")
    }
    self.exits = exits
    self.soft = soft
    self.softShare = softShare
    self.hintWeight = hintWeight
  }

  /// Watches `labels`, the deepest exit's likelihood loss, and for each exit `labels.BLOCK`,
  /// `soft.BLOCK` and `hint.BLOCK`.
  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    var states: [Int: Tensor] = [:]
    var observer = PassObserver()
    let exits = exits
    observer.onBlock = { if exits.contains($0) { states[$0] = $1 } }
    let deepest = try model.hidden(
      tokens: batch.inputs, segments: batch.segments, recomputing: context.recomputes,
      observer: observer)
    let wanted = batch.wantedRows
    let scale = Float(context.scale)
    let labels = LabelLoss()
    var values: [String: Double] = [:]

    func chunk(_ rows: ArraySlice<Int>, _ logits: Tensor, teacher: TeacherRows?) -> LogitRows {
      LogitRows(
        student: logits, teacher: teacher, targets: rows.map { batch.targets[$0] },
        weights: rows.map { batch.weights[$0] * scale },
        progress: Double(context.step) / Double(max(context.steps, 1)))
    }
    let (own, gradient) = model.headLoss(deepest, wanted: wanted) { rows, logits in
      let derivative = Tensor.zeros(logits.shape)
      let sum = labels.accumulate(
        chunk(rows, logits, teacher: nil), factor: 1,
        into: UnsafeMutablePointer(mutating: derivative.floats))
      return (sum, derivative)
    }
    values["labels"] = own
    var loss = own
    var roots: [(result: Tensor, gradient: Tensor)] = [(deepest, gradient)]
    let quiet = model.detached
    let teacher = deepest.detached
    for exit in exits {
      guard let state = states[exit] else { continue }
      let hidden = model.finalNorm?(state) ?? state
      var (likelihood, divergence) = (0.0, 0.0)
      let (_, gradient) = try model.headLoss(hidden, wanted: wanted) { rows, logits in
        let derivative = Tensor.zeros(logits.shape)
        let target = UnsafeMutablePointer(mutating: derivative.floats)
        let rows = chunk(
          rows, logits, teacher: .logits(quiet.logits(teacher.rows(at: Array(rows)))))
        likelihood += labels.accumulate(rows, factor: Float(1 - softShare), into: target)
        if softShare > 0 {
          divergence += try soft.accumulate(rows, factor: Float(softShare), into: target)
        }
        return (0, derivative)
      }
      let hint =
        hintWeight > 0
        ? Self.hint(
          hidden.detached, teacher, wanted: wanted, weights: batch.weights, scale: scale,
          factor: Float(hintWeight), into: gradient) : 0
      roots.append((hidden, gradient))
      values["labels.\(exit)"] = likelihood
      values["soft.\(exit)"] = divergence
      values["hint.\(exit)"] = hint
      loss += (1 - softShare) * likelihood + softShare * divergence + hintWeight * hint
    }
    Tape.backward(roots)
    values["loss"] = loss
    return values
  }

  /// The mean square of the difference of two states, each row by its weight, and `factor` times
  /// its derivative with respect to the first.
  private static func hint(
    _ states: Tensor, _ others: Tensor, wanted: [Int], weights: [Float], scale: Float,
    factor: Float, into gradient: Tensor
  ) -> Double {
    let width = states.columns
    let (a, b) = (Unshared(states.floats), Unshared(others.floats))
    let target = Unshared(UnsafeMutablePointer(mutating: gradient.floats))
    let sums = Parallel.map(wanted.count) { index in
      let row = wanted[index]
      let weight = weights[row] * scale / Float(width)
      var sum = 0.0
      for i in row * width..<(row + 1) * width {
        let difference = a.value[i] - b.value[i]
        sum += Double(difference) * Double(difference)
        target.value[i] += 2 * factor * weight * difference
      }
      return Double(weight) * sum
    }
    return withExtendedLifetime((states, others, gradient)) { sums.reduce(0, +) }
  }
}
