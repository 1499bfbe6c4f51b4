import Checkpoints
import Text

/// Llama's wiring and its descendants: RMS norms, rotary positions, a gated feed-forward.
extension GGUFArchitecture {
  /// Llama and Mistral, whose rotation llama.cpp computes on neighbouring pairs.
  static let llama = GGUFArchitecture(
    name: "llama", modelTypes: ["llama", "mistral"], blocks: "model.layers.", outer: gatedOuter,
    inner: gatedInner(queries: .rotaryPairs),
    configure: { (read) throws(CheckpointError) in
      try read.gated()
      if let window = try read.optionalSize("attention.sliding_window") {
        read.set("model_type", "mistral")
        read.set("architectures", ["MistralForCausalLM"])
        read.set("sliding_window", JSON(window))
        return
      }
      read.set("model_type", "llama")
      read.set("architectures", ["LlamaForCausalLM"])
      read.set("attention_bias", JSON(read.hasTensor("blk.0.attn_output.bias")))
      read.set("mlp_bias", JSON(read.hasTensor("blk.0.ffn_down.bias")))
    },
    describe: { model, write in
      write.gated(model)
      if let window = model.blocks.compactMap(\.attention.slidingWindow).first {
        write.set("attention.sliding_window", window)
        write.note("llama.cpp ignores the sliding window of \(window) tokens")
        if model.blocks.contains(where: { $0.attention.slidingWindow != window }) {
          write.refuse("its layers differ in their sliding windows")
        }
      }
      if model.blocks[0].attention.rotary?.dimensions != model.blocks[0].attention.headDim {
        write.refuse("only a part of each head rotates")
      }
    })

  static let qwen2 = GGUFArchitecture(
    name: "qwen2", modelTypes: ["qwen2"], blocks: "model.layers.", outer: gatedOuter,
    inner: gatedInner(),
    configure: { (read) throws(CheckpointError) in
      try read.gated()
      read.set("model_type", "qwen2")
      read.set("architectures", ["Qwen2ForCausalLM"])
      try read.layers()
    },
    describe: { model, write in
      write.gated(model)
      write.layers(model, usual: { _ in false })
    })

  static let qwen3 = GGUFArchitecture(
    name: "qwen3", modelTypes: ["qwen3"], blocks: "model.layers.", outer: gatedOuter,
    inner: gatedInner() + headNorms(),
    configure: { (read) throws(CheckpointError) in
      try read.gated()
      read.set("model_type", "qwen3")
      read.set("architectures", ["Qwen3ForCausalLM"])
      read.set("attention_bias", JSON(read.hasTensor("blk.0.attn_output.bias")))
      try read.layers()
    },
    describe: { model, write in
      write.gated(model)
      write.layers(model, usual: { _ in false })
      if model.blocks[0].attention.output.hasBias {
        write.refuse("llama.cpp has no biases in the attention of qwen3")
      }
    })

  static let olmo2 = GGUFArchitecture(
    name: "olmo2", modelTypes: ["olmo2"], blocks: "model.layers.", outer: gatedOuter,
    inner: gatedInner(norms: []) + headNorms() + [
      Name("post_attention_norm", "post_attention_layernorm"),
      Name("post_ffw_norm", "post_feedforward_layernorm"),
    ],
    repeatsTiedHead: true,
    configure: { (read) throws(CheckpointError) in
      try read.gated()
      read.set("model_type", "olmo2")
      read.set("architectures", ["Olmo2ForCausalLM"])
      read.set("attention_bias", JSON(read.hasTensor("blk.0.attn_output.bias")))
    },
    describe: { model, write in
      write.gated(model)
      if model.blocks[0].attention.output.hasBias {
        write.refuse("llama.cpp has no biases in the attention of olmo2")
      }
    })

  static let phi3 = GGUFArchitecture(
    name: "phi3", modelTypes: ["phi3"], blocks: "model.layers.", outer: gatedOuter,
    inner: [
      Name("attn_norm", "input_layernorm"), Name("attn_qkv", "self_attn.qkv_proj"),
      Name("attn_output", "self_attn.o_proj"), Name("ffn_norm", "post_attention_layernorm"),
      Name("ffn_up", "mlp.gate_up_proj"), Name("ffn_down", "mlp.down_proj"),
    ],
    configure: { (read) throws(CheckpointError) in
      try read.gated()
      read.set("model_type", "phi3")
      read.set("architectures", ["Phi3ForCausalLM"])
      let window = try read.optionalSize("attention.sliding_window")
      read.set("sliding_window", window.map { JSON($0) } ?? .null)
    },
    describe: { model, write in
      write.gated(model)
      if let window = model.blocks[0].attention.slidingWindow {
        write.set("attention.sliding_window", window)
        write.note("llama.cpp ignores the sliding window of \(window) tokens")
      }
    })

  static let gemma2 = GGUFArchitecture(
    name: "gemma2", modelTypes: ["gemma2"], blocks: "model.layers.", outer: gemmaOuter,
    inner: gemmaInner,
    configure: { (read) throws(CheckpointError) in
      try read.gemma()
      read.set("model_type", "gemma2")
      read.set("architectures", ["Gemma2ForCausalLM"])
      let layers = try read.size("block_count")
      let bigOne = layers == 46  // the 27B model scales by its width per head
      try read.attentionScale(
        usual: bigOne ? try read.size("embedding_length") / read.heads() : read.headDim())
      try read.layers(usual: { $0 % 2 == 0 })
    },
    describe: { model, write in
      write.gated(model)
      let attention = model.blocks[0].attention
      let bigOne = model.blocks.count == 46
      write.attentionScale(
        attention, usual: bigOne ? model.hiddenSize / attention.heads : attention.headDim)
      write.layers(model, usual: { $0 % 2 == 0 })
      if attention.softCap == nil || model.head.softCap == nil {
        write.refuse("llama.cpp always caps the scores and logits of gemma2")
      }
    })

  static let gemma3 = GGUFArchitecture(
    name: "gemma3", modelTypes: ["gemma3_text"], blocks: "model.layers.", outer: gemmaOuter,
    inner: gemmaInner + headNorms(.plusOne),
    configure: { (read) throws(CheckpointError) in
      try read.gemma()
      read.set("model_type", "gemma3_text")
      read.set("architectures", ["Gemma3ForCausalLM"])
      let layers = try read.size("block_count")
      let bigOne = layers == 62
      try read.attentionScale(
        usual: bigOne ? try read.size("embedding_length") / read.heads() : read.headDim())
      try read.layers(usual: { ($0 + 1) % 6 != 0 })
      let local = try read.optionalNumber("rope.freq_base_swa") ?? 10_000
      let wide = read.fields["rope_parameters"] ?? .null
      read.set(
        "rope_parameters",
        [
          "full_attention": wide,
          "sliding_attention": ["rope_type": "default", "rope_theta": JSON(local)],
        ])
    },
    describe: { model, write in
      write.gated(model)
      let attention = model.blocks[0].attention
      let bigOne = model.blocks.count == 62
      write.attentionScale(
        attention, usual: bigOne ? model.hiddenSize / attention.heads : attention.headDim)
      write.layers(model, usual: { ($0 + 1) % 6 != 0 })
      if attention.softCap != nil { write.note("llama.cpp does not cap the scores of gemma3") }
      let local = model.blocks.first { $0.attention.slidingWindow != nil }?.attention.rotary
      if let local {
        if local.scaling != .none { write.refuse("its local layers scale their rotation") }
        if local.theta != 10_000 { write.set("rope.freq_base_swa", Float(local.theta)) }
      }
    })

  // MARK: Names

  private static let gatedOuter = [
    Name("token_embd", "model.embed_tokens"), Name("output_norm", "model.norm"),
    Name("output", "lm_head"),
  ]

  private static let gemmaOuter = [
    Name("token_embd", "model.embed_tokens"), Name("output_norm", "model.norm", .plusOne),
    Name("output", "lm_head"),
  ]

  private static func gatedInner(
    queries: Form = .same,
    norms: [Name] = [
      Name("attn_norm", "input_layernorm"), Name("ffn_norm", "post_attention_layernorm"),
    ]
  ) -> [Name] {
    norms + [
      Name("attn_q", "self_attn.q_proj", queries), Name("attn_k", "self_attn.k_proj", queries),
      Name("attn_v", "self_attn.v_proj"), Name("attn_output", "self_attn.o_proj"),
      Name("ffn_gate", "mlp.gate_proj"), Name("ffn_up", "mlp.up_proj"),
      Name("ffn_down", "mlp.down_proj"),
    ]
  }

  private static let gemmaInner = gatedInner(norms: [
    Name("attn_norm", "input_layernorm", .plusOne),
    Name("post_attention_norm", "post_attention_layernorm", .plusOne),
    Name("ffn_norm", "pre_feedforward_layernorm", .plusOne),
    Name("post_ffw_norm", "post_feedforward_layernorm", .plusOne),
  ])

  private static func headNorms(_ form: Form = .same) -> [Name] {
    [
      Name("attn_q_norm", "self_attn.q_norm", form), Name("attn_k_norm", "self_attn.k_norm", form),
    ]
  }
}
