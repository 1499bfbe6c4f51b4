import Checkpoints
import Foundation
import Tensors

/// A random Llama of odd sizes, written to disk: 2 layers, hidden 48, 3 query heads of 16 on one
/// key-value head, ffn 80, vocabulary 61.
struct TinyModel {
  var isTied = true
  var dtype = DType.bfloat16
  /// Overwrites one weight of one tensor.
  var damage: (tensor: String, value: Float)?
  var extraTensor: String?

  static let layers = 2
  static let matrices = [
    "self_attn.q_proj": [48, 48], "self_attn.k_proj": [16, 48], "self_attn.v_proj": [16, 48],
    "self_attn.o_proj": [48, 48], "mlp.gate_proj": [80, 48], "mlp.up_proj": [80, 48],
    "mlp.down_proj": [48, 80],
  ]

  func write(to folder: String) throws {
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true)
    var shapes: [(String, [Int])] = [("model.embed_tokens.weight", [61, 48])]
    for layer in 0..<Self.layers {
      for (name, shape) in Self.matrices.sorted(by: { $0.key < $1.key }) {
        shapes.append(("model.layers.\(layer).\(name).weight", shape))
      }
      shapes.append(("model.layers.\(layer).input_layernorm.weight", [48]))
      shapes.append(("model.layers.\(layer).post_attention_layernorm.weight", [48]))
    }
    shapes.append(("model.norm.weight", [48]))
    if !isTied { shapes.append(("lm_head.weight", [61, 48])) }
    if let extraTensor { shapes.append((extraTensor, [4])) }
    var writer = try SafetensorsWriter(
      folder: folder,
      tensors: shapes.map { TensorDeclaration(name: $0.0, dtype: dtype, shape: $0.1) })
    var random = Xoshiro256(seed: 7)
    for (name, shape) in shapes {
      let scale: Float = shape.count == 2 ? 0.4 : 1
      var values = (0..<shape.reduce(1, *)).map { _ in (Float(random.uniform()) * 2 - 1) * scale }
      if let damage, damage.tensor == name { values[5] = damage.value }
      try writer.append(name, Tensor(values, shape: shape).converted(to: dtype))
    }
    _ = try writer.finish()
    let config = """
      {"model_type": "llama", "vocab_size": 61, "hidden_size": 48, "intermediate_size": 80,
       "num_hidden_layers": \(Self.layers), "num_attention_heads": 3, "num_key_value_heads": 1,
       "head_dim": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
       "hidden_act": "silu", "tie_word_embeddings": \(isTied), "bos_token_id": 1,
       "eos_token_id": 2}
      """
    try config.write(toFile: "\(folder)/config.json", atomically: false, encoding: .utf8)
  }
}
