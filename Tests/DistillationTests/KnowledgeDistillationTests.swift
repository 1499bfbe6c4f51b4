import Checkpoints
import Distillation
import Models
import Tensors
import TestSupport
import Testing
import Text
import Training

/// Whole training steps of a tiny student under a teacher of another shape.
struct KnowledgeDistillationTests {
  private static func config(layers: Int, hidden: Int, range: Double) -> JSON {
    [
      "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 61,
      "hidden_size": JSON(hidden), "intermediate_size": JSON(2 * hidden),
      "num_hidden_layers": JSON(layers), "num_attention_heads": 4, "num_key_value_heads": 2,
      "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
      "hidden_act": "silu", "tie_word_embeddings": false, "initializer_range": JSON(range),
      "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": 1,
    ]
  }

  private func model(_ folder: String, layers: Int, hidden: Int, range: Double, seed: UInt64) throws
    -> LanguageModel
  {
    let path = "\(folder)/\(layers)-\(seed)"
    let initialization = try ModelInitialization(
      config: Self.config(layers: layers, hidden: hidden, range: range), path: path)
    let output = try OutputDirectory(path, overwrite: false)
    try initialization.write(to: output, seed: seed)
    try output.finish()
    return try LanguageModel.load(path)
  }

  private func batch(seed: UInt64) -> TrainingBatch {
    var random = Xoshiro256(seed: seed)
    let tokens = (0..<4 * 17).map { _ in Int.random(in: 0..<61, using: &random) }
    let rows = (0..<4).map { Array(tokens[$0 * 17..<($0 + 1) * 17]) }
    return TrainingBatch(
      rows: 4, length: 16, inputs: rows.flatMap { $0.dropLast() },
      targets: rows.flatMap { $0.dropFirst() }, weights: [Float](repeating: 1, count: 64))
  }

  private func objective(_ teacher: any Teacher, _ divergence: DistillationDivergence) throws
    -> DistillationObjective
  {
    DistillationObjective(
      teacher: teacher, logitLosses: [.init(try SoftTargetLoss(divergence), weight: 1)])
  }

  @Test(arguments: everyDivergence) func aDozenStepsBringTheStudentNearerToTheTeacher(
    _ divergence: DistillationDivergence
  ) throws {
    try withTemporaryDirectory { folder in
      let teacher = ModelTeacher(
        try model(folder, layers: 3, hidden: 32, range: 0.3, seed: 1))
      let (student, parameters) = try model(
        folder, layers: 2, hidden: 24, range: 0.05, seed: 2
      ).withParameters()
      let batch = batch(seed: 3)
      let steps = 12
      var watched = try objective(teacher, .forwardKL)
      func forwardKL() throws -> Double {
        let values = try watched.accumulate(student, batch, .init(scale: 1.0 / 64))
        for parameter in parameters { parameter.clearGradient() }
        return try #require(values["kl"])
      }
      var objective = try objective(teacher, divergence)
      let optimizer = try OptimizerChoice.sgd(SGD(learningRate: 0.2, momentum: 0.9))
        .makeOptimizer(for: parameters)
      let before = try forwardKL()
      for step in 0..<steps {
        let values = try objective.accumulate(
          student, batch, .init(scale: 1.0 / 64, step: step, steps: steps))
        #expect(values["loss"]?.isFinite == true)
        #expect(values[divergence.name] == values["loss"])
        _ = try GradientClipping.clip(parameters, norm: 1)
        optimizer.step()
        for parameter in parameters { parameter.clearGradient() }
      }
      let after = try forwardKL()
      #expect(after < 0.97 * before, "\(before) to \(after)")
    }
  }
}
