import Checkpoints
import Codecs
import Foundation
import Models
import Tensors
import TestSupport
import Text
import Training

/// A tiny Llama of random numbers with a toy tokenizer's vocabulary, and text to train it on.
struct TrainerFixture {
  let folder: String
  let data: TrainingData
  private let model: String

  static let vocabulary = 128

  /// - Parameter text: nil for random documents of different lengths.
  init(_ folder: String, text: String? = nil) throws {
    self.folder = folder
    model = "\(folder)/model"
    let config: JSON = [
      "model_type": "llama", "vocab_size": JSON(Self.vocabulary), "hidden_size": 32,
      "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
      "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
      "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true,
      "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.1,
    ]
    let directory = try OutputDirectory(model, overwrite: false)
    try ModelInitialization(config: config, path: model).write(to: directory, seed: 11)
    try directory.finish()
    let documents = randomDocuments(40, longest: 60, seed: 3).joined(separator: "<|endoftext|>")
    data = try ToyFile(folder, text ?? documents).data(seed: 5)
  }

  /// Settings that finish in well under a second.
  static func settings(steps: Int = 5, _ optimizer: String = "adamw") throws -> TrainingSettings {
    var settings = TrainingSettings(
      steps: steps, optimizer: try OptimizerChoice(named: optimizer, learningRate: 3e-3))
    settings.batchSize = 4
    settings.length = 24
    settings.checkpointEvery = 100
    settings.seed = 9
    settings.schedule = Schedule(.cosine(), warmupSteps: 2)
    return settings
  }

  /// A trainer with a model of its own.
  /// - Parameter work: name of the folder for checkpoints.
  func trainer(
    _ settings: TrainingSettings, work: String? = nil, adapters: AdapterSettings? = nil,
    quantizingBase codec: NF4? = nil, identity: JSONObject = JSONObject()
  ) throws -> Trainer {
    let start = try LanguageModel.load(model)
    var objective: any Objective = LanguageModeling()
    let (student, parameters): (LanguageModel, [Parameter])
    var adapted: AdaptedModel?
    if let adapters {
      let model = try start.withAdapters(adapters, seed: settings.seed, quantizingBase: codec)
      (student, parameters) = (model.model, model.parameters)
      if let dropout = model.dropout {
        objective = AdapterObjective(objective, dropout: dropout)
      }
      adapted = model
    } else {
      (student, parameters) = start.withParameters(settings.parameterType)
    }
    let path = work.map { "\(folder)/\($0)" }
    if let path {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    let trainer = try Trainer(
      model: student, parameters: parameters, objective: objective,
      stream: try TrainingStream(
        data, encoder: ToyTokenizer.encoder(),
        options: .init(
          rows: settings.rowsAtOnce, length: settings.length, mode: settings.mode)),
      settings: settings, folder: path, identity: identity)
    if let adapted {
      trainer.save = { try AdapterFolder.write($0, adapted.settings, into: $1, base: "base") }
    }
    return trainer
  }
}

extension Trainer {
  /// Every bit that a later step depends on.
  var bytes: [String: [UInt8]] {
    var bytes: [String: [UInt8]] = [:]
    let tensors =
      parameters.map { ($0.name, $0.tensor) } + optimizer.state + (average?.state ?? [])
    for (name, tensor) in tensors {
      bytes[name] = [UInt8](UnsafeRawBufferPointer(tensor.detached.bytes))
    }
    return bytes
  }

  /// Runs to the end, or until a step; the losses of the steps done.
  @discardableResult
  func losses(until last: Int = .max) throws -> [Int: Double] {
    var losses: [Int: Double] = [:]
    try run {
      losses[$0.step] = $0.loss
      return $0.step < last
    }
    return losses
  }
}

/// The error that an operation must end with.
func trainingError(_ body: () throws -> Void) -> TrainingError? {
  do {
    try body()
    return nil
  } catch {
    return error as? TrainingError
  }
}
