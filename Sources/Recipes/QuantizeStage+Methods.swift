package import Calibration
package import Codecs
package import Models
package import Quantization
import Tensors

extension QuantizeStage {
  /// The method with these settings, for a matrix stored under a scheme.
  package func weightMethod(_ codec: AffineGroups, role: Role) -> any WeightMethod {
    if let floats = format.floats, let codec = floatCodec(floats, scaleType: codec.scaleType) {
      return FloatRounding(
        codec: codec, scaling: clipping == .mse ? .meanSquareError : .minMax)
    }
    if format == .nf4 { return NF4Rounding() }
    return switch method {
    case .gptq: gptq(codec)
    case .gptaq: GPTAQ(gptq: gptq(codec))
    case .hqq: HQQ(codec: codec)
    // Clipping queries and keys moves where attention looks (the authors' `auto_clip` skips them).
    case .awq where role != .query && role != .key && role != .queryKeyValue:
      ActivationAwareClipping(codec: codec)
    case .spqr: spqr
    case .billm: BiLLM(damping: dampingFraction)
    case .ternary: TernaryLeastSquares(groupSize: groupSize)
    case .onebit: OneBit()
    case .llmInt8: LLMInt8()
    case .rtn, .smoothquant, .awq, .autoround, .omniquant, .zeroquant:
      RoundToNearest(codec: codec, clipping: rounding)
    }
  }

  /// The same where nothing is measured of a matrix's inputs, as outside the blocks.
  package func dataFreeMethod(_ codec: AffineGroups, role: Role) -> any WeightMethod {
    let chosen = weightMethod(codec, role: role)
    return chosen.needs.isEmpty && !method.hasFormOfItsOwn
      ? chosen : RoundToNearest(codec: codec, clipping: rounding)
  }

  /// Factors that the method itself moves between channels first.
  package var ownScaling: (any ChannelScaling)? {
    switch method {
    case .awq: AWQ()
    case .smoothquant: SmoothQuant(strength: smoothingStrength)
    default: nil
    }
  }

  /// How the method treats a block whole, before its matrices are taken one by one.
  package var blockMethod: (any BlockMethod)? {
    switch method {
    case .autoround:
      var method = AutoRound()
      if let iterations { method.iterations = iterations }
      return method
    case .omniquant:
      var method = OmniQuant()
      if let iterations { method.epochs = iterations }
      return method
    case .zeroquant:
      var method = ZeroQuant()
      if let iterations { method.iterations = iterations }
      method.activationBits = activationScheme?.bits
      return method
    default: return nil
    }
  }

  /// What the inputs of the stage's layers are rounded to. SmoothQuant is about both sides.
  package var activationScheme: ActivationScheme? {
    switch activations {
    case .int8: .int8
    case .int8Static: try? ActivationScheme(bits: 8, granularity: .tensor)
    case nil: method == .smoothquant ? .int8 : nil
    }
  }

  package var rounding: RoundToNearest.Clipping {
    clipping == .mse ? .meanSquareError() : .minMax
  }

  /// FP8 has the strategy's scales; the other formats leave no choice.
  func floatCodec(_ format: FloatGroups.Format, scaleType: DType) -> FloatGroups? {
    let granularity: AffineGroups.Granularity =
      if case .group(let size) = granularity, !AffineGroups.supportedGroupSizes.contains(size) {
        .channel
      } else {
        granularity
      }
    return try? FloatGroups(format, granularity: granularity, scaleType: scaleType)
  }

  private func gptq(_ codec: AffineGroups) -> GPTQ {
    GPTQ(
      codec: codec, damping: dampingFraction, blockSize: blockSize,
      order: GPTQ.Order(rawValue: actOrder.rawValue) ?? .none,
      grids: usesStaticGroups ? .original : .current, clipping: rounding)
  }

  private var spqr: SpQR {
    guard let settings = try? BilevelWeight.Settings(bits: bits, groupSize: spqrGroupSize) else {
      preconditionFailure("a stage is validated before it is used")
    }
    return SpQR(settings: settings)
  }

  /// Nil for a whole row.
  private var groupSize: Int? {
    if case .group(let size) = granularity { size } else { nil }
  }

  var spqrGroupSize: Int { groupSize ?? 16 }

  /// Bits per weight to expect of a method whose form of its own depends on the data: codes, scales,
  /// and what methods usually keep apart.
  package func expectedBits(outputs: Int, inputs: Int) -> Double? {
    let rows = 16 / Double(max(inputs, 1))
    switch method {
    case .spqr:
      let groups = 1 / Double(spqrGroupSize)
      // Coded scales and zero points, their own levels for 16 rows, 1 % outliers of 32 bits.
      return Double(bits) + groups * (6 + 4 * 16 / 16) + 0.32
    case .billm: return 2 + 0.1 + 3 * 16 / 128
    case .ternary: return 2 + 16 / Double(groupSize ?? max(inputs, 1))
    case .llmInt8: return 8 + 2 * rows
    case .onebit: return 1 + rows + 16 / Double(max(outputs, 1))
    default: return nil
    }
  }
}
