import Checkpoints
import Distillation
import Models
import Tensors
import TestSupport
import Testing
import Text
import Training

/// Whole training steps of a tiny student under a teacher of other depth, width and heads, by one
/// loss on inner states and nothing else.
struct StateDistillationTests {
  private func model(
    _ path: String, layers: Int, hidden: Int, keyValueHeads: Int, range: Double, seed: UInt64
  ) throws -> LanguageModel {
    let config: JSON = [
      "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 31,
      "hidden_size": JSON(hidden), "intermediate_size": JSON(2 * hidden),
      "num_hidden_layers": JSON(layers), "num_attention_heads": 4,
      "num_key_value_heads": JSON(keyValueHeads), "max_position_embeddings": 32,
      "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
      "tie_word_embeddings": true, "initializer_range": JSON(range), "torch_dtype": "float32",
      "bos_token_id": 0, "eos_token_id": 1,
    ]
    let initialization = try ModelInitialization(config: config, path: path)
    let output = try OutputDirectory(path, overwrite: false)
    try initialization.write(to: output, seed: seed)
    try output.finish()
    return try LanguageModel.load(path)
  }

  private var batch: TrainingBatch {
    var random = Xoshiro256(seed: 3)
    let tokens = (0..<48).map { _ in Int.random(in: 0..<31, using: &random) }
    var weights = [Float](repeating: 1, count: 48)
    for place in [5, 15, 31] + Array(44..<48) { weights[place] = 0 }
    return TrainingBatch(
      rows: 3, length: 16, inputs: tokens, targets: Array(tokens[1...] + [0]), weights: weights,
      segments: [0..<6, 6..<16, 16..<32, 32..<44, 44..<48], padding: 4)
  }

  static func losses(_ s: StateShape, _ t: StateShape) throws -> [any StateLoss] {
    [
      try HiddenStateLoss(.fitNets, student: s, teacher: t),
      try HiddenStateLoss(.tinyBERT, student: s, teacher: t),
      try HiddenStateLoss(.distilBERT, student: s, teacher: t),
      try HiddenStateLoss(.mobileBERT, student: s, teacher: t),
      try AttentionMapLoss(.tinyBERT, student: s, teacher: t),
      try AttentionMapLoss(.init(measure: .probabilities), student: s, teacher: t),
      try AttentionMapLoss(.mobileBERT, student: s, teacher: t),
      try AttentionMapLoss(.init(heads: .averaged), student: s, teacher: t),
      try MiniLM(student: s, teacher: t),
      try MiniLMv2(student: s, teacher: t),
      try RelationalLoss(student: s, teacher: t),
      try RelationalLoss(.init(relation: .angle), student: s, teacher: t),
      try RelationalLoss(.init(items: .tokens, atMost: 8), student: s, teacher: t),
      try RelationalLoss(
        .init(relation: .angle, items: .tokens, atMost: 8), student: s, teacher: t),
    ]
  }

  @Test(arguments: 0..<14) func stepsDownTheGradientLowerEachLoss(index: Int) throws {
    try withTemporaryDirectory { folder in
      let teacher = try model(
        "\(folder)/teacher", layers: 4, hidden: 48, keyValueHeads: 4, range: 0.3, seed: 1)
      let (student, modelParameters) = try model(
        "\(folder)/student", layers: 2, hidden: 32, keyValueHeads: 2, range: 0.2, seed: 2
      ).withParameters()
      let loss = try Self.losses(
        StateShape(student.configuration), StateShape(teacher.configuration))[index]
      var objective = DistillationObjective(
        teacher: ModelTeacher(teacher), logitLosses: [], stateLosses: [.init(loss, weight: 2)])
      let parameters = modelParameters + objective.parameters
      let batch = batch
      let context = ObjectiveContext(
        scale: 1 / Double(batch.predictions), recomputes: !loss.needsAttention)
      func value() throws -> Double {
        for parameter in parameters { parameter.clearGradient() }
        let values = try objective.accumulate(student, batch, context)
        let own = try #require(values[loss.name])
        #expect(abs(try #require(values["loss"]) - 2 * own) < 1e-6)
        return own
      }
      let first = try value()
      var last = first
      for _ in 0..<8 {
        // Steps of one length, whatever the loss's size.
        let squares = parameters.compactMap(\.gradient).flatMap(\.array).reduce(0.0) {
          $0 + Double($1) * Double($1)
        }
        #expect(squares > 0 && squares.isFinite)
        let rate = Float(0.05 / squares.squareRoot())
        for parameter in parameters {
          guard let gradient = parameter.gradient else { continue }
          parameter.assign(parameter.tensor.detached + gradient.scaled(by: -rate))
        }
        last = try value()
      }
      #expect(last < first, "\(loss.name): \(first) to \(last)")
      for parameter in objective.parameters { #expect(parameter.gradient != nil) }
    }
  }

  @Test(arguments: 0..<14) func aModelThatIsItsOwnTeacherHasNoLoss(index: Int) throws {
    try withTemporaryDirectory { folder in
      let model = try model(
        "\(folder)/model", layers: 2, hidden: 32, keyValueHeads: 2, range: 0.2, seed: 2)
      let shape = StateShape(model.configuration)
      let loss = try Self.losses(shape, shape)[index]
      #expect(loss.parameters.isEmpty)
      let states = try model.states(batch, wanting: .attention, recomputing: false).states
      let value = try loss.value(
        student: states, teacher: states, segments: batch.segments, weights: batch.weights)
      #expect(abs(value.array[0]) < 1e-6)
    }
  }
}
