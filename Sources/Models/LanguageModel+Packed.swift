import Codecs
import Tensors

extension LanguageModel {
  /// What quantized matrices are multiplied by. Reports name it, because it changes results: at
  /// 8 bits each 32 activations share a scale, an error of about 0.4 % of the largest.
  public enum Activations: String, Sendable, Hashable, CaseIterable {
    /// As they are: exact up to float32 sums, and the choice for measuring a compressed model.
    case float32
    /// Rounded, with every quantized matrix in a packed form: several times faster.
    case int8
  }

  /// This model with its quantized matrices in the form that `activations` asks for. Dense matrices
  /// always take float32.
  ///
  /// Packing takes a copy of each matrix in memory and gives the file's pages back, so that no
  /// second copy stays resident. Call it on a model as loaded: packed matrices stay packed.
  ///
  /// - Parameter directory: keeps the packed matrices in a file there, as large as the quantized ones
  ///   together, and maps it at the next start instead of packing again.
  /// - Throws: only with a directory: `CheckpointError` if it cannot be written,
  ///   `ModelError.badPackedCache` if the file of that name there is something else.
  public func withActivations(
    _ activations: Activations, cachedIn directory: String? = nil
  ) throws -> LanguageModel {
    var model = self
    if activations == .int8 {
      let cache = try directory.map { try PackedCache(of: self, in: $0) }
      model = try mapped(matrix: { declaration, weight in
        // A table that only looks rows up stays in its file.
        if declaration.role == .embedding, !configuration.head.isTied { return weight }
        return try cache?.packed(weight) ?? weight.packed
      })
      try cache?.finish()
      model.packedFile = cache?.file
    }
    model.activations = activations
    return model
  }

  /// Whether some matrix is stored in codes, so that the choice of activations matters.
  public var isQuantized: Bool {
    blocks.contains { block in
      block.linears.contains { $0.weight.isQuantized }
    } || head.isQuantized
  }
}

extension Weight {
  fileprivate var isQuantized: Bool {
    self is BlockQuantizedWeight || self is GroupQuantizedWeight || self is PackedWeight
      || self is MixedInt8Weight
  }

  /// The packed form of a quantized matrix, else the weight itself.
  var packed: any Weight {
    switch self {
    case let blocks as BlockQuantizedWeight: PackedWeight(packing: blocks) ?? self
    case let groups as GroupQuantizedWeight: PackedWeight(packing: groups) ?? self
    case let mixed as MixedInt8Weight: mixed.packed ?? self
    default: self
    }
  }
}
