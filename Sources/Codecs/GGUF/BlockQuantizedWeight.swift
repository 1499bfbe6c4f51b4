public import Tensors

/// A matrix kept as the blocks of a GGUF file, row after row, in Hugging Face row order.
///
/// This is the stored form: what a file holds and a codec gives. `PackedWeight` is the form it takes
/// to be multiplied fast.
public struct BlockQuantizedWeight: Sendable {
  public let type: GGUFType
  public let outputs: Int
  public let inputs: Int
  /// Bytes `[outputs, rowBytes]`, mapped or owned.
  package let blocks: Tensor

  package init(type: GGUFType, outputs: Int, inputs: Int, blocks: Tensor) {
    precondition(blocks.byteCount == outputs * type.rowBytes(inputs: inputs))
    self.type = type
    self.outputs = outputs
    self.inputs = inputs
    self.blocks = blocks
  }
}
