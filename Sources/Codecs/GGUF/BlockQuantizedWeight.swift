import CKernels
public import Tensors

/// A matrix kept as the blocks of a GGUF file, row after row, in Hugging Face row order.
///
/// This is the stored form: what a file holds and a codec gives. `PackedWeight` is the form it takes
/// to be multiplied fast.
public struct BlockQuantizedWeight: StoredWeight {
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

  /// Bytes of a row.
  public var rowBytes: Int { type.rowBytes(inputs: inputs) }
  public var storedBytes: Int { blocks.byteCount }

  /// One component, `weight`: the blocks as bytes `[outputs, rowBytes]`.
  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    [(GGUFBlocks.suffix, blocks)]
  }

  public func multiply(_ x: Tensor) -> Tensor { recordingInput(x, openedProduct(x)) }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    guard !range.isEmpty, inputs > 0 else { return }
    pare_block_decode(
      type.kernelType, blocks.rawPointer + range.lowerBound * rowBytes, range.count * inputs, target
    )
  }

  public func giveBack() { blocks.giveBack() }

  /// Reads every block's scales and throws when one is NaN or infinite, which no encoder writes. It
  /// touches the whole matrix, so opening a file does not do it.
  /// - Throws: `CodecError.wrongValue`.
  public func checkScales() throws(CodecError) {
    let offsets = type.scaleOffsets
    let blockBytes = type.blockBytes
    let blocksPerRow = inputs / type.blockLength
    let damaged = Parallel.map(outputs) { row in
      let start = blocks.rawPointer + row * rowBytes
      return (0..<blocksPerRow).first { index in
        let block = start + index * blockBytes
        if type == .mxfp4 { return block.load(as: UInt8.self) == 255 }
        return offsets.contains { offset in
          let half = block.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
          return UInt16(littleEndian: half) & 0x7c00 == 0x7c00
        }
      }
    }
    for (row, block) in damaged.enumerated() {
      guard let block else { continue }
      throw .wrongValue(
        component: GGUFBlocks.suffix,
        reason: "the scale of the \(type.name) block at row \(row), column "
          + "\(block * type.blockLength) is NaN or infinite")
    }
  }
}

extension GGUFType {
  /// Where a block keeps its float16 scales.
  fileprivate var scaleOffsets: [Int] {
    switch self {
    case .q4_0, .q5_0, .q8_0, .iq4_nl, .iq4_xs: [0]
    case .q4_1, .q5_1, .q4_K, .q5_K: [0, 2]
    case .q2_K: [80, 82]
    case .q3_K: [108]
    case .q6_K: [208]
    case .tq1_0: [52]
    case .tq2_0: [64]
    case .f32, .f16, .bf16, .mxfp4: []
    }
  }
}
