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
  public func withActivations(_ activations: Activations) -> LanguageModel {
    var model = activations == .int8 ? packed() : self
    model.activations = activations
    return model
  }

  /// Whether some matrix is stored in codes, so that the choice of activations matters.
  public var isQuantized: Bool {
    blocks.contains { block in
      block.linears.contains { $0.weight.isQuantized }
    } || head.isQuantized
  }

  /// Every quantized matrix packed where a packed form fits it.
  func packed() -> LanguageModel {
    var model = self
    func pack(_ linear: inout Linear) { linear.weight = linear.weight.packed }
    for index in model.blocks.indices {
      for input in model.blocks[index].attentionInputs.indices {
        pack(&model.blocks[index].attentionInputs[input])
      }
      pack(&model.blocks[index].attentionOutput)
      for input in model.blocks[index].feedForwardInputs.indices {
        pack(&model.blocks[index].feedForwardInputs[input])
      }
      pack(&model.blocks[index].feedForwardOutput)
    }
    if var projection = embedding.projection {
      pack(&projection)
      model.embedding.projection = projection
    }
    if var projection = headProjection {
      pack(&projection)
      model.headProjection = projection
    }
    model.head = model.head.packed
    // A table that only looks rows up stays in its file.
    if configuration.head.isTied { model.embedding.table = model.head }
    return model
  }
}

extension Weight {
  fileprivate var isQuantized: Bool {
    self is BlockQuantizedWeight || self is GroupQuantizedWeight || self is PackedWeight
  }

  /// The packed form of a quantized matrix, else the weight itself.
  fileprivate var packed: any Weight {
    switch self {
    case let blocks as BlockQuantizedWeight: PackedWeight(packing: blocks) ?? self
    case let groups as GroupQuantizedWeight: PackedWeight(packing: groups) ?? self
    default: self
    }
  }
}
