import Calibration
import Checkpoints
import Codecs
import Models
import Tensors
import TestSupport
import Text

/// A block of a tiny random Llama, with texts that flow through it.
struct BlockFixture {
  let model: LanguageModel
  let block: Block
  let inputs: [Tensor]
  let targets: [Tensor]
  let segments: [[Range<Int>]]

  /// - Parameters:
  ///   - noise: deviation of what compressed blocks before added to the inputs.
  ///   - type: `llama`, or `opt` for layer norms and biases.
  init(
    hidden: Int = 32, intermediate: Int = 56, heads: Int = 4, keyValueHeads: Int = 2,
    batches: Int = 3, textLength: Int = 9, noise: Double = 0.05, type: String = "llama",
    seed: UInt64 = 1
  ) throws {
    var config: JSON = [
      "model_type": "llama", "vocab_size": 64, "hidden_size": JSON(hidden),
      "intermediate_size": JSON(intermediate), "num_hidden_layers": 1,
      "num_attention_heads": JSON(heads), "num_key_value_heads": JSON(keyValueHeads),
      "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
      "hidden_act": "silu", "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1,
      "initializer_range": 0.25,
    ]
    if type == "opt" {
      config = [
        "model_type": "opt", "vocab_size": 64, "hidden_size": JSON(hidden),
        "word_embed_proj_dim": JSON(hidden), "ffn_dim": JSON(intermediate),
        "num_hidden_layers": 1, "num_attention_heads": JSON(heads),
        "max_position_embeddings": 64, "activation_function": "relu",
        "do_layer_norm_before": true, "bos_token_id": 0, "eos_token_id": 1, "init_std": 0.25,
        "initializer_range": 0.25,
      ]
    }
    model = try withTemporaryDirectory { folder in
      let path = "\(folder)/model"
      let directory = try OutputDirectory(path, overwrite: false)
      try ModelInitialization(config: config, path: path).write(to: directory, seed: seed)
      try directory.finish()
      return try LanguageModel.load(path)
    }
    var random = Xoshiro256(seed: seed &+ 77)
    // Norms and biases that do something; an outlier channel, as real models have.
    let varied = model.mapped(
      matrix: { $1 },
      vector: { _, tensor in
        Tensor(
          (0..<tensor.count).map { index in
            tensor.floats[index] * (index % 11 == 3 ? 4 : 1) + Float(0.1 * random.normal())
          }, shape: tensor.shape)
      })
    block = varied.blocks[0]
    let lengths = [textLength, max(textLength - 4, 1)]
    segments = (0..<batches).map { _ in
      var first = 0
      return lengths.map { length in
        defer { first += length }
        return first..<first + length
      }
    }
    let tokens = lengths.reduce(0, +)
    let clean = segments.map { _ in
      Tensor((0..<tokens * hidden).map { _ in Float(random.normal()) }, shape: [tokens, hidden])
    }
    inputs = clean.map { x in
      Tensor(x.array.map { $0 + Float(noise * random.normal()) }, shape: x.shape)
    }
    let (model, block) = (model, block)
    targets = zip(clean, segments).map {
      block.forward($0, model.context(of: $1, block: 0))
    }
  }

  /// - Parameter isRounded: which matrices.
  func problem(
    _ codec: AffineGroups, seed: UInt64 = 3,
    where isRounded: @escaping (Role) -> Bool = { _ in true }
  ) -> BlockProblem {
    BlockProblem(
      block: block, index: 0, batches: inputs.count, seed: seed,
      codec: { isRounded($0.role) ? codec : nil },
      context: { model.context(of: segments[$0], block: 0) }, input: { inputs[$0] },
      target: { targets[$0] })
  }

  /// Mean squared error of a block's outputs.
  func error(of block: Block) -> Double {
    var (sum, count) = (0.0, 0)
    for batch in inputs.indices {
      let y = block.forward(inputs[batch], model.context(of: segments[batch], block: 0))
      for index in 0..<y.count {
        let difference = Double(y.floats[index]) - Double(targets[batch].floats[index])
        sum += difference * difference
      }
      count += y.count
    }
    return sum / Double(count)
  }

  /// The block with every matrix rounded to nearest.
  func roundedToNearest(_ codec: AffineGroups) throws -> Block {
    var rounded = block
    func round(_ linear: Linear) throws -> Linear {
      var linear = linear
      linear.weight = try codec.encode(linear.weight.dequantized())
      return linear
    }
    rounded.attentionInputs = try block.attentionInputs.map(round)
    rounded.attentionOutput = try round(block.attentionOutput)
    rounded.feedForwardInputs = try block.feedForwardInputs.map(round)
    rounded.feedForwardOutput = try round(block.feedForwardOutput)
    return rounded
  }
}

extension Block {
  /// Bytes of all matrices, norms and biases.
  var bytes: [[UInt8]] {
    let stored = linears.flatMap { linear in
      (linear.weight as? any StoredWeight)?.encoded().map(\.tensor) ?? [linear.weight.dequantized()]
    }
    let vectors =
      linears.compactMap(\.bias)
      + [attentionNorms.before, feedForwardNorms.before].compactMap { $0 }
      .flatMap { [$0.weight, $0.bias].compactMap { $0 } }
    return (stored + vectors).map { [UInt8]($0.bytes) }
  }
}

/// The results of `body` with 1 and 2 threads.
func withThreadCounts<R>(_ body: () throws -> R) rethrows -> [R] {
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  return try [1, 2].map {
    Parallel.threads = $0
    return try body()
  }
}
