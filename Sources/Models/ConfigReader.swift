package import Text

/// Reads the fields of a `config.json`, remembering which were asked for, so that a field that
/// would change the computation cannot pass unread.
package struct ConfigReader {
  package let path: String
  package let fields: JSONObject
  private var asked: Set<String> = []

  package init(fields: JSONObject, path: String) {
    self.fields = fields
    self.path = path
  }

  // MARK: Typed fields. JSON null counts as absent, as in transformers.

  package mutating func integer(_ name: String) throws(ModelError) -> Int {
    guard let value = try optionalInteger(name) else { throw .missingField(name, path: path) }
    return value
  }

  package mutating func optionalInteger(_ name: String) throws(ModelError) -> Int? {
    guard let value = field(name) else { return nil }
    guard let integer = value.int else { throw bad(name, "an integer", value) }
    return integer
  }

  /// A size: at least one, and small enough that products of sizes cannot overflow.
  package mutating func size(_ name: String) throws(ModelError) -> Int {
    guard let value = try optionalSize(name) else { throw .missingField(name, path: path) }
    return value
  }

  package mutating func optionalSize(_ name: String) throws(ModelError) -> Int? {
    guard let value = try optionalInteger(name) else { return nil }
    guard (1...(1 << 28)).contains(value) else {
      throw .badField(
        name, expected: "between 1 and 2^28", found: String(value), path: path)
    }
    return value
  }

  package mutating func number(_ name: String, default fallback: Double) throws(ModelError)
    -> Double
  {
    try optionalNumber(name) ?? fallback
  }

  package mutating func optionalNumber(_ name: String) throws(ModelError) -> Double? {
    guard let value = field(name) else { return nil }
    guard let number = value.double, number.isFinite else { throw bad(name, "a number", value) }
    return number
  }

  package mutating func bool(_ name: String, default fallback: Bool) throws(ModelError) -> Bool {
    guard let value = field(name) else { return fallback }
    guard let bool = value.bool else { throw bad(name, "true or false", value) }
    return bool
  }

  package mutating func optionalString(_ name: String) throws(ModelError) -> String? {
    guard let value = field(name) else { return nil }
    guard let string = value.string else { throw bad(name, "a string", value) }
    return string
  }

  package mutating func numbers(_ name: String) throws(ModelError) -> [Double] {
    guard let value = field(name) else { throw .missingField(name, path: path) }
    let numbers = value.array?.compactMap(\.double)
    guard let numbers, numbers.count == value.array?.count else {
      throw bad(name, "a list of numbers", value)
    }
    return numbers
  }

  /// One id or a list of ids (`eos_token_id`).
  package mutating func tokens(_ name: String) throws(ModelError) -> [Int] {
    guard let value = field(name) else { return [] }
    if let one = value.int { return [one] }
    let ids = value.array?.compactMap(\.int)
    guard let ids, ids.count == value.array?.count else {
      throw bad(name, "a token id or a list of them", value)
    }
    return ids
  }

  /// One string per layer, such as `layer_types`.
  package mutating func optionalStrings(_ name: String) throws(ModelError) -> [String]? {
    guard let value = field(name) else { return nil }
    let strings = value.array?.compactMap(\.string)
    guard let strings, strings.count == value.array?.count else {
      throw bad(name, "a list of strings", value)
    }
    return strings
  }

  /// A nested object, read by the same rules.
  package mutating func nested(_ name: String) throws(ModelError) -> ConfigReader? {
    guard let value = field(name) else { return nil }
    guard let object = value.object else { throw bad(name, "an object", value) }
    return ConfigReader(fields: object, path: path)
  }

  package mutating func has(_ name: String) -> Bool { field(name) != nil }

  package func unsupported(_ name: String, _ reason: String) -> ModelError {
    .unsupportedField(name, value: Self.text(fields[name]), reason: reason, path: path)
  }

  package func bad(_ name: String, expected: String) -> ModelError {
    .badField(name, expected: expected, found: Self.text(fields[name]), path: path)
  }

  // MARK: What was not asked for

  /// Fails on a field that some computation reads and this architecture did not; returns the names
  /// of fields nobody here knows.
  package func finish() throws(ModelError) -> [String] {
    var unknown: [String] = []
    for name in fields.keyStrings where !asked.contains(name) {
      guard let value = fields[name], !Self.isNull(value) else { continue }
      if Self.inert.contains(name) { continue }
      guard let neutral = Self.neutral[name] else {
        unknown.append(name)
        continue
      }
      if !neutral.contains(Self.text(value)) {
        throw unsupported(name, "this architecture has no such part here")
      }
    }
    return unknown
  }

  private mutating func field(_ name: String) -> JSON? {
    asked.insert(name)
    guard let value = fields[name], !Self.isNull(value) else { return nil }
    return value
  }

  private func bad(_ name: String, _ expected: String, _ value: JSON) -> ModelError {
    .badField(name, expected: expected, found: Self.text(value), path: path)
  }

  private static func isNull(_ value: JSON) -> Bool {
    if case .null = value { true } else { false }
  }

  private static func text(_ value: JSON?) -> String {
    guard let value else { return "absent" }
    let bytes = value.serialized(pretty: false)
    return bytes.count > 80
      ? String(decoding: bytes.prefix(80), as: UTF8.self) + "…"
      : String(decoding: bytes, as: UTF8.self)
  }

  /// Fields that steer training, saving or generation, never the forward pass.
  private static let inert: Set<String> = [
    "_name_or_path", "_commit_hash", "architectures", "attention_dropout", "attn_implementation",
    "_attn_implementation", "attn_pdrop", "attention_probs_dropout_prob", "auto_map",
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "cache_implementation",
    "chunk_size_feed_forward", "classifier_dropout", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dropout", "dtype", "early_stopping", "embd_pdrop", "eos_token_id",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id",
    "forced_eos_token_id", "gradient_checkpointing", "hidden_dropout",
    "hidden_dropout_prob", "id2label", "init_std", "initializer_factor", "initializer_range",
    "keys_to_ignore_at_inference", "label2id", "layerdrop", "length_penalty", "max_length",
    "min_length", "model_type", "name_or_path", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_labels", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "pad_token_id", "prefix", "problem_type",
    "pruned_heads", "quantization_config", "remove_invalid_values", "repetition_penalty",
    "reorder_and_upcast_attn", "resid_pdrop", "return_dict", "return_dict_in_generate",
    "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
    "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
    "transformers_version", "typical_p", "unk_token_id", "use_bfloat16", "use_cache",
    "summary_type",
    "summary_use_proj", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "n_ctx", "pretraining_tp", "slow_but_exact", "attention_softmax_in_fp32",
    "masked_softmax_fusion", "bias_dropout_fusion", "skip_bias_add", "skip_bias_add_qkv",
    "unsloth_fixed", "unsloth_version", "use_mrope",
  ]

  /// Fields that change some architecture's computation, and the values that mean "not here".
  private static let neutral: [String: Set<String>] = [
    "add_cross_attention": ["false"], "alibi": ["false"], "attention_bias": ["false"],
    "attention_chunk_size": [], "attention_multiplier": ["1", "1.0"],
    "attn_logit_softcapping": [], "clip_qkv": [], "do_layer_norm_before": [],
    "embedding_multiplier": ["1", "1.0"], "embedding_size": [],
    "final_logit_softcapping": [], "is_decoder": ["true", "false"],
    "is_encoder_decoder": ["false"], "layer_types": [], "logit_scale": ["1", "1.0"],
    "logits_scaling": ["1", "1.0"], "mlp_bias": ["false"], "moe_intermediate_size": [],
    "multi_query": ["false"], "n_routed_experts": ["0"], "no_rope_layers": ["[]"],
    "norm_topk_prob": ["false"], "num_experts": ["0"], "num_experts_per_tok": ["0", "1"],
    "num_local_experts": ["0", "1"], "parallel_attn": ["false"],
    "partial_rotary_factor": ["1", "1.0"], "qk_layernorm": ["false"], "qkv_bias": ["false"],
    "query_pre_attn_scalar": [], "residual_multiplier": ["1", "1.0"],
    "rope_interleaved": ["false"], "rope_parameters": [], "rope_scaling": [],
    "rotary_dim": [], "scale_attn_by_inverse_layer_idx": ["false"],
    "scale_attn_weights": ["true"], "sliding_window": [], "sliding_window_pattern": [],
    "use_bidirectional_attention": ["false"], "use_parallel_residual": [], "use_qk_norm": ["false"],
    "use_sliding_window": ["false"],
  ]
}
