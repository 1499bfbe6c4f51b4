import Checkpoints
import Codecs
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Text
import Training

private func model(_ name: String) throws -> LanguageModel {
  try .load(
    SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures/\(name)").path)
}

private let tokens = (0..<24).map { ($0 * 17 + 3) % 61 }

private func logits(_ model: LanguageModel, _ tokens: [Int] = tokens) throws -> [Float] {
  model.logits(try model.hidden(tokens: tokens, segments: [0..<tokens.count])).array
}

/// Mean next-token cross-entropy, and its gradients in the model's parameters.
private func loss(_ model: LanguageModel, _ tokens: [Int]) throws -> Double {
  let hidden = try model.hidden(tokens: tokens, segments: [0..<tokens.count])
  let count = tokens.count - 1
  let (sum, gradient) = model.headLoss(hidden, wanted: Array(0..<count)) { rows, logits in
    let lengths = logits.logSumExpRows()
    var sum = 0.0
    let derivative = Tensor(shape: logits.shape) { target in
      for (index, row) in rows.enumerated() {
        let start = index * logits.columns
        for column in 0..<logits.columns {
          let value = Double(logits.floats[start + column])
          target[start + column] = Float(exp(value - lengths[index]) / Double(count))
        }
        let label = start + tokens[row + 1]
        target[label] -= 1 / Float(count)
        sum += (lengths[index] - Double(logits.floats[label])) / Double(count)
      }
    }
    return (sum, derivative)
  }
  Tape.backward([(hidden, gradient)])
  return sum
}

private func worst(_ a: [Float], _ b: [Float]) -> Float {
  zip(a, b).map { abs($0 - $1) }.max() ?? .infinity
}

/// Adapters with values as a training might leave them.
private func disturb(_ adapted: AdaptedModel, seed: UInt64) {
  var random = Xoshiro256(seed: seed)
  for parameter in adapted.parameters {
    let old = parameter.tensor.array
    parameter.assign(
      Tensor(old.map { $0 + Float(random.normal()) * 0.1 }, shape: parameter.shape))
  }
}

struct AdapterModelTests {
  @Test(arguments: ["llama3", "gpt2", "phi3", "bloom"], [false, true])
  func newAdaptersChangeNothingAndMergedOnesComputeTheSame(
    name: String, isDecomposed: Bool
  ) throws {
    let base = try model(name)
    let settings = AdapterSettings(rank: 3, isWeightDecomposed: isDecomposed)
    let adapted = try base.withAdapters(settings, seed: 9)
    let again = try base.withAdapters(settings, seed: 9)
    for (a, b) in zip(adapted.parameters, again.parameters) {
      #expect(a.tensor.array == b.tensor.array)
    }
    #expect(worst(try logits(adapted.model), try logits(base)) <= (isDecomposed ? 1e-4 : 0))

    disturb(adapted, seed: 10)
    let expected = try logits(adapted.model)
    #expect(worst(expected, try logits(base)) > 1e-2)
    #expect(worst(expected, try logits(adapted.model.merged(as: .float32))) < 1e-4)
    // Merged matrices are stored as the base was unless told otherwise.
    for (block, original) in zip(adapted.model.merged().blocks, base.blocks) {
      for (linear, original) in zip(block.linears, original.linears) {
        #expect(linear.weight.storedBytes == original.weight.storedBytes)
      }
    }
    #expect(worst(expected, try logits(adapted.model.detached)) == 0)
  }

  @Test(arguments: [false, true], [nil, NF4.qlora] as [NF4?])
  func gradientDescentOnAdaptersLowersTheLossAndLeavesTheBaseAlone(
    isDecomposed: Bool, codec: NF4?
  ) throws {
    let base = try model("llama3")
    let settings = AdapterSettings(rank: 4, alpha: 8, isWeightDecomposed: isDecomposed)
    let adapted = try base.withAdapters(settings, seed: 11, quantizingBase: codec)
    func baseBytes() -> [[UInt8]] {
      adapted.model.adapters.flatMap { adapter in
        ((adapter.weight.base as? any StoredWeight)?.encoded() ?? []).map { Array($0.tensor.bytes) }
      }
    }
    let before = baseBytes()
    #expect(before.count >= 14)
    var losses: [Double] = []
    for _ in 0..<12 {
      losses.append(try loss(adapted.model, tokens))
      for parameter in adapted.parameters {
        let gradient = try #require(parameter.gradient)
        parameter.assign(parameter.tensor.detached - gradient.scaled(by: 0.1))
        parameter.clearGradient()
      }
    }
    #expect(zip(losses, losses.dropFirst()).allSatisfy { $0 > $1 })
    #expect(try #require(losses.last) < 0.9 * (try #require(losses.first)))
    #expect(baseBytes() == before)
  }

  /// Logits and gradients that PEFT computed from folders it wrote (Scripts/fixtures/adapters.py).
  @Test(arguments: [("lora", "llama3"), ("dora", "llama3"), ("dora-transposed", "gpt2")])
  func foldersOfPEFTGiveItsLogitsItsGradientsAndThemselves(name: String, base: String) throws {
    let folder = SharedFiles.packageRoot.appending(path: "Tests/Golden/adapters/\(name)").path
    let golden = try Checkpoint.openSafetensors("\(folder)/golden.safetensors")
    let adapted = try AdapterFolder.read(folder, onto: model(base))
    let tokens = try golden.tensor("tokens").bytes.bindMemory(to: Int32.self).map(Int.init)
    let expected = try golden.tensor("logits").array
    #expect(worst(try logits(adapted.model, tokens), expected) < 2e-5)

    let found = try loss(adapted.model, tokens)
    #expect(abs(found - Double(try golden.tensor("loss").array[0])) < 1e-5)
    #expect(golden.names.count == adapted.parameters.count + 3)
    for parameter in adapted.parameters {
      let expected = try golden.tensor("gradient/\(parameter.name)").array
      let size = expected.map(abs).max() ?? 0
      let gradient = try #require(parameter.gradient)
      #expect(worst(gradient.array, expected) <= 2e-4 * size + 1e-7, "\(parameter.name)")
    }

    try withTemporaryDirectory { temporary in
      let out = "\(temporary)/adapter"
      try AdapterFolder.write(adapted, to: out, base: base)
      let ours = try Checkpoint.openSafetensors("\(out)/adapter_model.safetensors")
      let theirs = try Checkpoint.openSafetensors("\(folder)/adapter_model.safetensors")
      #expect(Set(ours.names) == Set(theirs.names))
      for name in ours.names {
        #expect(try ours.tensor(name).isIdentical(to: theirs.tensor(name)))
      }
      let (config, reference) = (
        try JSON.parse(ours.readSideFile("adapter_config.json"), name: "ours"),
        try JSON.parse(theirs.readSideFile("adapter_config.json"), name: "theirs")
      )
      for (key, value) in try #require(config.object) {
        let key = String(decoding: key, as: UTF8.self)
        let other = try #require(reference[key])
        if key == "target_modules" {
          #expect(
            Set((value.array ?? []).compactMap(\.string))
              == Set((other.array ?? []).compactMap(\.string)))
        } else if let number = value.double {
          #expect(number == other.double)
        } else {
          #expect(value == other, "\(key)")
        }
      }
    }
  }

  @Test func someMatricesOfAKindAreExportedByWholePaths() throws {
    let adapted = try model("llama3").withAdapters(
      AdapterSettings(rank: 2), targets: [.query, .down], seed: 1)
    #expect(adapted.parameters.count == 8)
    #expect(
      adapted.parameters.first?.name
        == "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight")
    let bound = 1 / Float(40).squareRoot()
    let first = try #require(adapted.parameters.first).tensor.array
    #expect(first.allSatisfy { abs($0) <= bound } && (first.map(abs).max() ?? 0) > 0.9 * bound)
    try withTemporaryDirectory { temporary in
      try AdapterFolder.write(adapted, to: "\(temporary)/a", base: "base")
      let read = try AdapterFolder.read("\(temporary)/a", onto: model("llama3"))
      #expect(read.settings == adapted.settings)
      #expect(read.parameters.map(\.name) == adapted.parameters.map(\.name))
    }
  }

  @Test func settingsTargetsAndFoldersThatDoNotFitAreRefused() throws {
    let base = try model("llama3")
    for settings in [
      AdapterSettings(rank: 0), AdapterSettings(alpha: .nan), AdapterSettings(alpha: -1),
      AdapterSettings(dropout: 1), AdapterSettings(dropout: -0.1),
    ] {
      #expect(throws: TrainingError.self) { try base.withAdapters(settings, seed: 0) }
    }
    for targets in [[.norm], [.embedding], [], [.gateUp]] as [Set<Role>] {
      #expect(throws: TrainingError.self) {
        try base.withAdapters(AdapterSettings(), targets: targets, seed: 0)
      }
    }
    let adapted = try base.withAdapters(AdapterSettings(rank: 2), seed: 0)
    #expect(throws: TrainingError.self) {
      try adapted.model.withAdapters(AdapterSettings(), seed: 0)
    }
    try withTemporaryDirectory { temporary in
      let folder = "\(temporary)/a"
      try AdapterFolder.write(adapted, to: folder, base: "base")
      #expect(throws: TrainingError.self) { try AdapterFolder.read(folder, onto: model("gpt2")) }
      let path = URL(filePath: "\(folder)/adapter_config.json")
      let config = try String(contentsOf: path, encoding: .utf8)
      for (old, new) in [
        ("\"LORA\"", "\"IA3\""), ("\"r\": 2", "\"r\": 3"), ("\"r\": 2", "\"r\": \"2\""),
        ("\"bias\": \"none\"", "\"bias\": \"all\""),
        ("\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 4}"),
        ("\"use_dora\": false", "\"use_dora\": true"),
        ("\"bias\": \"none\"", "\"bias\": \"none\", \"lora_bias\": true"),
        ("\"bias\": \"none\"", "\"bias\": \"none\", \"layer_replication\": [[0, 1]]"),
      ] {
        let changed = config.replacing(old, with: new)
        #expect(changed != config, "\(old)")
        try changed.write(to: path, atomically: true, encoding: .utf8)
        #expect(throws: TrainingError.self) { try AdapterFolder.read(folder, onto: base) }
      }
    }
  }
}
