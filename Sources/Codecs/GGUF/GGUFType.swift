package import CKernels

/// The element types of GGUF tensors that Pare reads and writes, by their numbers in the file.
///
/// All but `f32`, `f16` and `bf16` are block types: `blockLength` neighbouring weights of one row
/// share a block of `blockBytes` bytes with its own scales.
public enum GGUFType: UInt32, Sendable, Hashable, CaseIterable {
  case f32 = 0
  case f16 = 1
  case q4_0 = 2
  case q4_1 = 3
  case q5_0 = 6
  case q5_1 = 7
  case q8_0 = 8
  case q2_K = 10
  case q3_K = 11
  case q4_K = 12
  case q5_K = 13
  case q6_K = 14
  case iq4_nl = 20
  case iq4_xs = 23
  case bf16 = 30
  case tq1_0 = 34
  case tq2_0 = 35
  case mxfp4 = 39

  /// Weights of a row that share a block.
  public var blockLength: Int {
    switch self {
    case .f32, .f16, .bf16: 1
    case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_nl, .mxfp4: 32
    case .q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .iq4_xs, .tq1_0, .tq2_0: 256
    }
  }

  /// Bytes of a block.
  public var blockBytes: Int {
    switch self {
    case .f32: 4
    case .f16, .bf16: 2
    case .q4_0: 2 + 16
    case .q4_1: 2 + 2 + 16
    case .q5_0: 2 + 4 + 16
    case .q5_1: 2 + 2 + 4 + 16
    case .q8_0: 2 + 32
    case .q2_K: 16 + 64 + 2 + 2
    case .q3_K: 32 + 64 + 12 + 2
    case .q4_K: 2 + 2 + 12 + 128
    case .q5_K: 2 + 2 + 12 + 32 + 128
    case .q6_K: 128 + 64 + 16 + 2
    case .iq4_nl: 2 + 16
    case .iq4_xs: 2 + 2 + 4 + 128
    case .tq1_0: 48 + 4 + 2
    case .tq2_0: 64 + 2
    case .mxfp4: 1 + 16
    }
  }

  /// Stored bits over the number of weights.
  public var bitsPerWeight: Double { Double(blockBytes * 8) / Double(blockLength) }

  /// As llama.cpp prints it: `Q4_K`.
  public var name: String {
    switch self {
    case .f32: "F32"
    case .f16: "F16"
    case .bf16: "BF16"
    case .q4_0: "Q4_0"
    case .q4_1: "Q4_1"
    case .q5_0: "Q5_0"
    case .q5_1: "Q5_1"
    case .q8_0: "Q8_0"
    case .q2_K: "Q2_K"
    case .q3_K: "Q3_K"
    case .q4_K: "Q4_K"
    case .q5_K: "Q5_K"
    case .q6_K: "Q6_K"
    case .iq4_nl: "IQ4_NL"
    case .iq4_xs: "IQ4_XS"
    case .tq1_0: "TQ1_0"
    case .tq2_0: "TQ2_0"
    case .mxfp4: "MXFP4"
    }
  }

  /// Bytes of a row of `inputs` weights, which must be a multiple of the block length.
  public func rowBytes(inputs: Int) -> Int {
    precondition(inputs % blockLength == 0, "\(inputs) columns in blocks of \(blockLength)")
    return inputs / blockLength * blockBytes
  }

  package var kernelType: pare_block_type { pare_block_type(rawValue: rawValue) }
}
