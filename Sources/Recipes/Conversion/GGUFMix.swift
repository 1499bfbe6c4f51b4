public import Codecs
import Models

/// Which block type each matrix of a GGUF file gets: the mixes that llama.cpp's quantizer knows,
/// under its names (ggml-org/llama.cpp, src/llama-quant.cpp).
public enum GGUFMix: String, Sendable, CaseIterable {
  case f32, f16, bf16
  case q8_0, q5_1, q5_0, q4_1, q4_0
  case q6_k, q5_k_m, q5_k_s, q4_k_m, q4_k_s, q3_k_l, q3_k_m, q3_k_s, q2_k, q2_k_s
  case iq4_nl, iq4_xs
  case tq1_0, tq2_0
  case mxfp4

  /// What most matrices get.
  public var base: GGUFType {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    case .q8_0: .q8_0
    case .q5_1: .q5_1
    case .q5_0: .q5_0
    case .q4_1: .q4_1
    case .q4_0: .q4_0
    case .q6_k: .q6_K
    case .q5_k_m, .q5_k_s: .q5_K
    case .q4_k_m, .q4_k_s: .q4_K
    case .q3_k_l, .q3_k_m, .q3_k_s: .q3_K
    case .q2_k, .q2_k_s: .q2_K
    case .iq4_nl: .iq4_nl
    case .iq4_xs: .iq4_xs
    case .tq1_0: .tq1_0
    case .tq2_0: .tq2_0
    case .mxfp4: .mxfp4
    }
  }

  /// `general.file_type`
  var fileType: Int {
    switch self {
    case .f32: 0
    case .f16: 1
    case .q4_0: 2
    case .q4_1: 3
    case .q8_0: 7
    case .q5_0: 8
    case .q5_1: 9
    case .q2_k: 10
    case .q3_k_s: 11
    case .q3_k_m: 12
    case .q3_k_l: 13
    case .q4_k_s: 14
    case .q4_k_m: 15
    case .q5_k_s: 16
    case .q5_k_m: 17
    case .q6_k: 18
    case .q2_k_s: 21
    case .iq4_nl: 25
    case .iq4_xs: 30
    case .bf16: 32
    case .tq1_0: 36
    case .tq2_0: 37
    case .mxfp4: 38
    }
  }

  /// What the choice for one matrix depends on besides its role.
  struct Place {
    var block: Int
    var blocks: Int
    var headsPerGroup: Int
    /// The embedding is also the head.
    var isTied: Bool
  }

  /// The type of a matrix, and why it is not the mix's choice where its columns are no whole blocks.
  func type(of role: Role, inputs: Int, _ place: Place) -> (type: GGUFType, note: String?) {
    guard base.blockLength > 1 else { return (base, nil) }
    let wanted = wanted(role, inputs: inputs, place)
    guard inputs % wanted.blockLength != 0 else { return (wanted, nil) }
    var type: GGUFType =
      switch wanted {
      case .q2_K, .q3_K, .iq4_xs: .iq4_nl
      case .q4_K: .q5_0
      case .q5_K: .q5_1
      case .q6_K: .q8_0
      case .tq1_0, .tq2_0: .q4_0
      default: .f16
      }
    if inputs % type.blockLength != 0 { type = .f16 }
    return (type, "\(inputs) columns are no blocks of \(wanted.blockLength): \(type.name)")
  }

  private func wanted(_ role: Role, inputs: Int, _ place: Place) -> GGUFType {
    let (block, blocks) = (place.block, place.blocks)
    switch role {
    case .head: return headType(inputs: inputs)
    case .embedding:
      if place.isTied { return headType(inputs: inputs) }
      if self == .mxfp4 { return .q8_0 }
      return base == .tq1_0 || base == .tq2_0 ? .q4_K : base
    case .value:
      switch self {
      case .q2_k: return place.headsPerGroup >= 4 ? .q4_K : .q3_K
      case .q2_k_s where place.headsPerGroup >= 4: return .q4_K
      case .q3_k_m: return block < 2 ? .q5_K : .q4_K
      case .q3_k_l: return .q5_K
      case .iq4_nl where place.headsPerGroup >= 4, .iq4_xs where place.headsPerGroup >= 4:
        return .q5_K
      case .q4_k_m where getsMoreBits(place), .q5_k_m where getsMoreBits(place): return .q6_K
      case .q4_k_s where block < 4: return .q5_K
      default: break
      }
      // The 70B models share each value head among eight query heads: the matrix is small.
      if blocks == 80, base == .q3_K || base == .q4_K { return .q5_K }
      return base
    case .down:
      switch self {
      case .q2_k: return .q3_K
      case .q2_k_s where block < blocks / 8: return .q4_K
      case .q3_k_m: return block < blocks / 16 ? .q5_K : .q4_K
      case .q3_k_l: return .q5_K
      case .q4_k_m where getsMoreBits(place), .q5_k_m where getsMoreBits(place): return .q6_K
      case .q4_k_s where block < blocks / 8, .iq4_nl where block < blocks / 8,
        .iq4_xs where block < blocks / 8:
        return .q5_K
      default: return base
      }
    case .attentionOutput:
      switch self {
      case .q2_k: return .q3_K
      case .q3_k_m: return .q4_K
      case .q3_k_l: return .q5_K
      default: return base
      }
    case .queryKeyValue:
      switch self {
      case .q3_k_m, .q3_k_l: return .q4_K
      case .q4_k_m: return .q5_K
      case .q5_k_m: return .q6_K
      default: return base
      }
    default: return base
    }
  }

  private func headType(inputs: Int) -> GGUFType {
    if self == .mxfp4 || base == .q8_0 || inputs % base.blockLength != 0 { return .q8_0 }
    return .q6_K
  }

  /// The first and last eighth of the blocks, and every third between.
  private func getsMoreBits(_ place: Place) -> Bool {
    let eighth = place.blocks / 8
    return place.block < eighth || place.block >= 7 * place.blocks / 8
      || (place.block - eighth) % 3 == 2
  }
}
