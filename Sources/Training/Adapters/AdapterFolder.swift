public import Checkpoints
public import Models
import Tensors
import Text

/// Adapters as a folder that PEFT and everything that reads its format load: `adapter_config.json` and
/// `adapter_model.safetensors`.
public enum AdapterFolder {
  static let configuration = "adapter_config.json"
  static let weights = "adapter_model.safetensors"
  static let downSuffix = "lora_A.weight"
  static let upSuffix = "lora_B.weight"
  static let magnitudeSuffix = "lora_magnitude_vector"
  private static let prefix = "base_model.model."

  static func name(_ module: String, _ suffix: String) -> String { "\(prefix)\(module).\(suffix)" }

  // MARK: Writing

  /// Writes the adapters of a model; the folder appears when it is whole.
  ///
  /// - Parameters:
  ///   - target: the folder to be.
  ///   - base: the name or path of the base model, for readers that look it up.
  /// - Throws: `CheckpointError`; `TrainingError.badAdapter` if the model has no adapters.
  public static func write(
    _ adapted: AdaptedModel, to target: String, base: String, overwrite: Bool = false
  ) throws {
    let output = try OutputDirectory(
      target, overwrite: overwrite, inputs: adapted.model.checkpoint.inputPaths)
    try write(adapted.model, adapted.settings, into: output, base: base)
    try output.finish()
  }

  /// Writes the two files into a folder that is being made.
  ///
  /// - Parameter model: of `withAdapters` with the same settings, or its `detached`.
  public static func write(
    _ model: LanguageModel, _ settings: AdapterSettings, into output: OutputDirectory, base: String
  ) throws {
    let adapters = model.adapters
    guard !adapters.isEmpty else {
      throw TrainingError.badAdapter(path: output.target, reason: "the model has no adapters")
    }
    var tensors: [(name: String, tensor: Tensor)] = []
    for (matrix, weight) in adapters {
      tensors.append((name(matrix.module, downSuffix), weight.down.detached))
      tensors.append((name(matrix.module, upSuffix), weight.up.detached))
      if let magnitude = weight.magnitude {
        tensors.append((name(matrix.module, magnitudeSuffix), magnitude.detached))
      }
    }
    var writer = try SafetensorsWriter(
      file: "\(output.path)/\(weights)",
      tensors: tensors.map {
        TensorDeclaration(name: $0.name, dtype: $0.tensor.dtype, shape: $0.tensor.shape)
      })
    for (name, tensor) in tensors { try writer.append(name, tensor) }
    _ = try writer.finish()
    let config = configuration(model, settings, adapters.map(\.matrix), base: base)
    try output.write(configuration, config.serialized(pretty: true))
  }

  private static func configuration(
    _ model: LanguageModel, _ settings: AdapterSettings, _ matrices: [ModelTensor], base: String
  ) -> JSON {
    [
      "peft_type": "LORA",
      "task_type": "CAUSAL_LM",
      "base_model_name_or_path": JSON(base),
      "r": JSON(settings.rank),
      "lora_alpha": JSON(settings.alpha),
      "lora_dropout": JSON(settings.dropout),
      "use_rslora": JSON(settings.isRankStabilized),
      "use_dora": JSON(settings.isWeightDecomposed),
      "target_modules": .array(targets(matrices, in: model).map { JSON($0) }),
      "fan_in_fan_out": JSON(matrices.contains(where: \.isTransposed)),
      "bias": "none",
      "modules_to_save": nil,
      "rank_pattern": .object(JSONObject()),
      "alpha_pattern": .object(JSONObject()),
      "init_lora_weights": true,
      "inference_mode": true,
    ]
  }

  /// Last components of the modules' paths, where those name adapted modules only; else whole paths.
  private static func targets(_ matrices: [ModelTensor], in model: LanguageModel) -> [String] {
    func last(_ module: String) -> String {
      module.split(separator: ".").last.map(String.init) ?? module
    }
    let modules = Set(matrices.map(\.module))
    let others = model.configuration.tensors.filter { $0.isMatrix && !modules.contains($0.module) }
    let names = Set(modules.map(last))
    return (names.isDisjoint(with: others.map { last($0.module) }) ? names : modules).sorted()
  }

  // MARK: Reading

  /// A model with the adapters of a folder, to run, to merge or to train on.
  ///
  /// - Parameter seed: of dropout, where the configuration has it.
  /// - Throws: `CheckpointError` and `JSONError` where files are missing or damaged;
  ///   `TrainingError.badAdapter` where they do not fit the model or ask for something else.
  public static func read(_ folder: String, onto model: LanguageModel, seed: UInt64 = 0) throws
    -> AdaptedModel
  {
    let file = try Checkpoint.openSafetensors("\(folder)/\(weights)")
    let config = try JSON.parse(
      file.readSideFile(configuration), name: "\(folder)/\(configuration)")
    let settings = try settings(config, path: folder)
    var rest = Set(file.names)
    let adapted = try model.withAdapters(settings, seed: seed, quantizingBase: nil) {
      declaration, weight throws(TrainingError) in
      func tensor(_ suffix: String, _ shape: [Int]) throws(TrainingError) -> Tensor {
        let name = name(declaration.module, suffix)
        rest.remove(name)
        do {
          let stored = try file.expect(name, shape: shape)
          guard stored.dtype.isFloatingPoint else {
            throw TrainingError.badAdapter(path: folder, reason: "\(name) is \(stored.dtype)")
          }
          return stored.widened()
        } catch let error as TrainingError {
          throw error
        } catch {
          throw .badAdapter(path: folder, reason: "\(error)")
        }
      }
      guard file.contains(name(declaration.module, downSuffix)) else { return nil }
      return AdapterTensors(
        down: try tensor(downSuffix, [settings.rank, weight.inputs]),
        up: try tensor(upSuffix, [weight.outputs, settings.rank]),
        magnitude: settings.isWeightDecomposed
          ? try tensor(magnitudeSuffix, [weight.outputs]) : nil)
    }
    if let stray = rest.min() {
      throw TrainingError.badAdapter(
        path: folder, reason: "the model has no place for its tensor \(stray)")
    }
    return adapted
  }

  /// What changes the computation in ways that are not offered.
  private static let changing = [
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "lora_bias",
    "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
    "velora_config",
  ]

  private static func settings(_ config: JSON, path: String) throws -> AdapterSettings {
    func wrong(_ key: String, _ expected: String) -> TrainingError {
      .badAdapter(path: path, reason: "\(configuration): \"\(key)\" must be \(expected)")
    }
    guard config["peft_type"]?.string == "LORA" else { throw wrong("peft_type", "\"LORA\"") }
    guard let rank = config["r"]?.int else { throw wrong("r", "a whole number") }
    guard let alpha = config["lora_alpha"]?.double else { throw wrong("lora_alpha", "a number") }
    if let bias = config["bias"], !bias.isNull, bias.string != "none" {
      throw wrong("bias", "\"none\"")
    }
    for key in ["rank_pattern", "alpha_pattern", "modules_to_save"] {
      guard let value = config[key], !value.isNull else { continue }
      if value.object?.isEmpty != true, value.array?.isEmpty != true {
        throw wrong(key, "empty; other values are not supported")
      }
    }
    for key in changing {
      guard let value = config[key], !value.isNull, value.bool != false else { continue }
      throw wrong(key, "null or false; other values are not supported")
    }
    let settings = AdapterSettings(
      rank: rank, alpha: alpha, dropout: config["lora_dropout"]?.double ?? 0,
      isRankStabilized: config["use_rslora"]?.bool ?? false,
      isWeightDecomposed: config["use_dora"]?.bool ?? false)
    try settings.check()
    return settings
  }
}
