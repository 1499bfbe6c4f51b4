import Checkpoints

/// How llama.cpp names and orders the tensors of one family, and how its metadata maps to the
/// family's `config.json` and back. (ggml-org/llama.cpp, gguf-py/gguf/tensor_mapping.py and
/// convert_hf_to_gguf.py.)
package struct GGUFArchitecture: Sendable {
  /// What happens to a tensor's numbers on the way from Hugging Face.
  package enum Form: Sendable {
    case same
    /// Rows of queries or keys in the order that interleaved rotation wants.
    case rotaryPairs
    /// Rows of a fused matrix by part, then by head.
    case fusedHeads
    /// A norm's weight as it multiplies: one more than stored.
    case plusOne
    /// `[in, out]` becomes `[out, in]`.
    case transposed
  }

  /// One module's two names.
  package struct Name: Sendable {
    package let gguf: String
    package let huggingFace: String
    package let form: Form

    init(_ gguf: String, _ huggingFace: String, _ form: Form = .same) {
      self.gguf = gguf
      self.huggingFace = huggingFace
      self.form = form
    }
  }

  /// `general.architecture`
  package let name: String
  /// The `model_type` values that are written as this architecture.
  package let modelTypes: [String]
  /// What precedes a block's number in Hugging Face names.
  let blocks: String
  /// Modules outside the blocks, and in each block.
  let outer: [Name]
  let inner: [Name]
  /// llama.cpp wants `output.weight` even where it is the embedding's copy.
  package var repeatsTiedHead = false
  /// llama.cpp wants every matrix to have a bias; missing ones are written as zeros.
  package var fillsBiases = false
  /// Writes the family's own fields of `config.json`.
  let configure: @Sendable (inout GGUFConfigReader) throws(CheckpointError) -> Void
  /// Writes the family's own metadata; `write.refuse` where llama.cpp would compute otherwise.
  let describe: @Sendable (ModelConfiguration, inout GGUFDescription) -> Void

  package static let all: [GGUFArchitecture] = [
    .llama, .qwen2, .qwen3, .gemma2, .gemma3, .phi3, .olmo2, .gpt2, .bloom, .gptNeoX,
  ]

  /// The name and form in Hugging Face of a GGUF tensor; nil for a name of another family.
  func huggingFaceName(_ gguf: String) -> (name: String, form: Form)? {
    var parts = gguf.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count >= 2, let suffix = parts.popLast(), suffix == "weight" || suffix == "bias"
    else { return nil }
    if parts.count == 1 {
      guard let name = outer.first(where: { $0.gguf == parts[0] }) else { return nil }
      return ("\(name.huggingFace).\(suffix)", name.form)
    }
    guard parts.count == 3, parts[0] == "blk", let block = Int(parts[1]), String(block) == parts[1],
      let name = inner.first(where: { $0.gguf == parts[2] })
    else { return nil }
    return ("\(blocks)\(block).\(name.huggingFace).\(suffix)", name.form)
  }

  /// The GGUF name and form of a declared tensor, whose name carries the base prefix.
  package func ggufName(_ tensor: ModelTensor) -> (name: String, form: Form)? {
    let suffix = tensor.name.dropFirst(tensor.module.count)  // .weight or .bias
    guard let block = tensor.block else {
      return outer.first { $0.huggingFace == tensor.module }.map {
        ("\($0.gguf)\(suffix)", $0.form)
      }
    }
    let start = "\(blocks)\(block)."
    guard tensor.module.hasPrefix(start) else { return nil }
    let module = tensor.module.dropFirst(start.count)
    return inner.first { $0.huggingFace == module }.map {
      ("blk.\(block).\($0.gguf)\(suffix)", $0.form)
    }
  }

  /// The order of a tensor's rows, where it is another one.
  package static func order(_ form: Form, headDim: Int) -> RowOrder? {
    switch form {
    case .rotaryPairs: .rotaryPairs(headDim: headDim)
    case .fusedHeads: .fusedHeads(headDim: headDim)
    case .same, .plusOne, .transposed: nil
    }
  }
}
