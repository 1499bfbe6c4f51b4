package import Codecs
package import Models

/// An engine meant to open the result. What it cannot open becomes a note in the plan, never a
/// surprise at load time.
public enum Consumer: String, Sendable, CaseIterable {
  case transformers
  case vllm

  /// Why this engine would not open a matrix stored so; empty if it would.
  package func objections(to scheme: AffineGroups, _ tensor: ModelTensor) -> [String] {
    var objections: [String] = []
    if tensor.isTransposed {
      objections.append("\(rawValue) quantizes Linear layers only, this is a Conv1D")
    }
    if tensor.role == .embedding {
      objections.append("\(rawValue) does not open quantized embeddings")
    }
    if self == .transformers, !scheme.isSymmetric, scheme.layout == .packed {
      objections.append(
        "transformers 5 opens packed zero points with CompressedTensorsConfig(dequantize=True) only"
      )
    }
    if self == .vllm, !scheme.isSymmetric, 32 % scheme.bits != 0 {
      objections.append("vLLM does not open \(scheme.bits)-bit zero points")
    }
    if self == .vllm {
      if scheme.layout == .packed, ![4, 8].contains(scheme.bits) {
        objections.append("vLLM's kernels take 4 and 8 bits, not \(scheme.bits)")
      }
      if case .group(let size) = scheme.granularity, ![32, 64, 128].contains(size) {
        objections.append("vLLM's kernels take groups of 32, 64 or 128, not \(size)")
      }
      if scheme.granularity == .tensor {
        objections.append("vLLM's kernels take groups or channels, not one scale per tensor")
      }
      if tensor.outputs % 64 != 0 {
        objections.append("vLLM's kernels want outputs in multiples of 64, not \(tensor.outputs)")
      }
    }
    return objections
  }
}
