import Checkpoints
import Text

/// The GPT-2 generation: layer norms with biases, a feed-forward of two matrices.
extension GGUFArchitecture {
  static let gpt2 = GGUFArchitecture(
    name: "gpt2", modelTypes: ["gpt2"], blocks: "transformer.h.",
    outer: [
      Name("token_embd", "transformer.wte"), Name("position_embd", "transformer.wpe"),
      Name("output_norm", "transformer.ln_f"), Name("output", "lm_head"),
    ],
    inner: [
      Name("attn_norm", "ln_1"), Name("attn_qkv", "attn.c_attn", .transposed),
      Name("attn_output", "attn.c_proj", .transposed), Name("ffn_norm", "ln_2"),
      Name("ffn_up", "mlp.c_fc", .transposed), Name("ffn_down", "mlp.c_proj", .transposed),
    ],
    configure: { (read) throws(CheckpointError) in
      read.set("model_type", "gpt2")
      read.set("architectures", ["GPT2LMHeadModel"])
      read.set("n_embd", JSON(try read.size("embedding_length")))
      read.set("n_layer", JSON(try read.size("block_count")))
      read.set("n_head", JSON(try read.heads()))
      read.set("n_inner", JSON(try read.size("feed_forward_length")))
      read.set("n_positions", JSON(try read.size("context_length")))
      read.set("activation_function", "gelu_new")
      read.set("layer_norm_epsilon", JSON(try read.number("attention.layer_norm_epsilon")))
    },
    describe: { model, write in
      write.layerNormed(model, activation: .geluTanh)
      if model.blocks.contains(where: { $0.attention.scale != model.blocks[0].attention.scale }) {
        write.refuse("llama.cpp does not scale scores by the layer's number")
      }
    })

  static let bloom = GGUFArchitecture(
    name: "bloom", modelTypes: ["bloom"], blocks: "transformer.h.",
    outer: [
      Name("token_embd", "transformer.word_embeddings"),
      Name("token_embd_norm", "transformer.word_embeddings_layernorm"),
      Name("output_norm", "transformer.ln_f"), Name("output", "lm_head"),
    ],
    inner: [
      Name("attn_norm", "input_layernorm"),
      Name("attn_qkv", "self_attention.query_key_value", .fusedHeads),
      Name("attn_output", "self_attention.dense"), Name("ffn_norm", "post_attention_layernorm"),
      Name("ffn_up", "mlp.dense_h_to_4h"), Name("ffn_down", "mlp.dense_4h_to_h"),
    ],
    configure: { (read) throws(CheckpointError) in
      let hidden = try read.size("embedding_length")
      read.set("model_type", "bloom")
      read.set("architectures", ["BloomForCausalLM"])
      read.set("hidden_size", JSON(hidden))
      read.set("n_layer", JSON(try read.size("block_count")))
      read.set("n_head", JSON(try read.heads()))
      read.set("seq_length", JSON(try read.size("context_length")))
      read.set("layer_norm_epsilon", JSON(try read.number("attention.layer_norm_epsilon")))
      if try read.size("feed_forward_length") != 4 * hidden {
        throw read.unsupported("feed_forward_length", "is not four times the embedding's length")
      }
    },
    describe: { model, write in
      write.layerNormed(model, activation: .geluTanh)
      if model.blocks.contains(where: \.residualIsNormed) {
        write.refuse("llama.cpp adds branches to the block's input, not to the normed one")
      }
    })

  static let gptNeoX = GGUFArchitecture(
    name: "gptneox", modelTypes: ["gpt_neox"], blocks: "gpt_neox.layers.",
    outer: [
      Name("token_embd", "gpt_neox.embed_in"), Name("output_norm", "gpt_neox.final_layer_norm"),
      Name("output", "embed_out"),
    ],
    inner: [
      Name("attn_norm", "input_layernorm"),
      Name("attn_qkv", "attention.query_key_value", .fusedHeads),
      Name("attn_output", "attention.dense"), Name("ffn_norm", "post_attention_layernorm"),
      Name("ffn_up", "mlp.dense_h_to_4h"), Name("ffn_down", "mlp.dense_4h_to_h"),
    ],
    repeatsTiedHead: true, fillsBiases: true,
    configure: { (read) throws(CheckpointError) in
      read.set("model_type", "gpt_neox")
      read.set("architectures", ["GPTNeoXForCausalLM"])
      read.set("hidden_size", JSON(try read.size("embedding_length")))
      read.set("intermediate_size", JSON(try read.size("feed_forward_length")))
      read.set("num_hidden_layers", JSON(try read.size("block_count")))
      read.set("num_attention_heads", JSON(try read.heads()))
      read.set("max_position_embeddings", JSON(try read.size("context_length")))
      read.set("layer_norm_eps", JSON(try read.number("attention.layer_norm_epsilon")))
      read.set("hidden_act", "gelu")
      read.set("use_parallel_residual", JSON(try read.flag("use_parallel_residual") ?? true))
      read.set("attention_bias", JSON(read.hasTensor("blk.0.attn_output.bias")))
      try read.rotary(headDim: read.headDim())
    },
    describe: { model, write in
      write.layerNormed(model, activation: .gelu)
      write.set("use_parallel_residual", model.blocks[0].isParallel)
      if let rotary = model.blocks[0].attention.rotary { write.rotary(rotary) }
    })
}
