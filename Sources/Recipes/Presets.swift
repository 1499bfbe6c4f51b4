import Codecs

extension Recipe {
  /// Recipes by name, for `pare compress --recipe NAME`. The names follow compressed-tensors.
  public static let presets: [String: Recipe] = {
    var presets: [String: Recipe] = [:]
    func add(_ name: String, _ vary: (inout QuantizeStage) -> Void) {
      var stage = QuantizeStage()
      vary(&stage)
      presets[name] = Recipe(name: name, stages: [.quantize(stage)])
    }
    for bits in AffineGroups.supportedBits {
      add("w\(bits)a16") { $0.bits = bits }
    }
    add("w4a16-asym") { $0.isSymmetric = false }
    add("w8a16-channel") {
      $0.bits = 8
      $0.granularity = .channel
    }
    // Small groups and a clipping search: what rounding alone can do best at a few bits.
    for bits in [2, 3, 4] {
      add("w\(bits)a16-fine") {
        $0.bits = bits
        $0.granularity = .group(32)
        $0.isSymmetric = false
        $0.clipping = .mse
      }
    }
    // 4 bits by effort: in seconds without data; with samples; with all that helps.
    add("light") {
      $0.granularity = .group(64)
      $0.clipping = .mse
    }
    add("balanced") {
      $0.method = .gptq
      $0.granularity = .group(64)
      $0.clipping = .mse
      $0.actOrder = .static
    }
    add("best") {
      $0.method = .gptaq
      $0.granularity = .group(32)
      $0.isSymmetric = false
      $0.clipping = .mse
      $0.actOrder = .static
    }
    return presets
  }()
}
