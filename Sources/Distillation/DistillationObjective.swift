package import Models
package import Tensors
package import Training

/// A weighted sum of losses between a student and a teacher, on one batch of text.
package struct DistillationObjective: Objective {
  package struct Weighted<Loss: Sendable>: Sendable {
    package var loss: Loss
    package var weight: Double

    package init(_ loss: Loss, weight: Double) {
      self.loss = loss
      self.weight = weight
    }
  }

  package var teacher: any Teacher
  package var logitLosses: [Weighted<any LogitLoss>]
  package var stateLosses: [Weighted<any StateLoss>]

  package init(
    teacher: any Teacher, logitLosses: [Weighted<any LogitLoss>],
    stateLosses: [Weighted<any StateLoss>] = []
  ) {
    self.teacher = teacher
    self.logitLosses = logitLosses
    self.stateLosses = stateLosses
  }

  package var parameters: [Parameter] { stateLosses.flatMap { $0.loss.parameters } }

  private var wish: StateWish {
    if stateLosses.isEmpty { return .none }
    return stateLosses.contains { $0.loss.needsAttention } ? .attention : .states
  }

  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    let needsTeacher = !stateLosses.isEmpty || logitLosses.contains { $0.loss.needsTeacher }
    let teacherStates = needsTeacher ? try teacher.begin(batch, wanting: wish) : nil
    let (hidden, states) = try model.states(
      batch, wanting: wish, recomputing: context.recomputes && wish != .attention)
    var values: [String: Double] = [:]
    var roots: [(result: Tensor, gradient: Tensor)] = []

    let (total, gradient) = try model.headLoss(hidden, wanted: batch.wantedRows) { rows, logits in
      let places = Array(rows)
      let chunk = LogitRows(
        student: logits,
        teacher: logitLosses.contains { $0.loss.needsTeacher } ? try teacher.rows(places) : nil,
        targets: places.map { batch.targets[$0] },
        weights: places.map { batch.weights[$0] * Float(context.scale) },
        progress: Double(context.step) / Double(max(context.steps, 1)))
      let derivative = Tensor.zeros(logits.shape)
      let target = UnsafeMutablePointer(mutating: derivative.floats)
      var sum = 0.0
      for entry in logitLosses {
        let value = try entry.loss.accumulate(chunk, factor: Float(entry.weight), into: target)
        values[entry.loss.name, default: 0] += value
        sum += entry.weight * value
      }
      return (sum, derivative)
    }
    roots.append((hidden, gradient))
    var loss = total
    if let teacherStates {
      // A batch's share in the step's mean, as the logit losses have it by their weights.
      let share = context.scale * batch.weights.reduce(0.0) { $0 + Double($1) }
      for entry in stateLosses {
        let value = try entry.loss.value(
          student: states, teacher: teacherStates, segments: batch.segments,
          weights: batch.weights)
        let number = Double(value.floats[0])
        values[entry.loss.name, default: 0] += number * share
        loss += entry.weight * number * share
        roots.append((value, Tensor([Float(entry.weight * share)], shape: value.shape)))
      }
    }
    Tape.backward(roots)
    values["loss"] = loss
    return values
  }
}
