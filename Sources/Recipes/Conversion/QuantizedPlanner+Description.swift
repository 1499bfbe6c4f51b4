import Codecs
import Models
import Text

extension QuantizedPlanner {
  /// What `config.json` says of the quantization; nil where nothing is quantized.
  func description(tiedHead: String?) throws -> JSON? {
    let quantized = steps.filter { $0.scheme != nil }
    let layouts = quantized.compactMap(\.layout)
    guard let first = layouts.first else { return nil }
    let dense = steps.filter {
      $0.scheme == nil && $0.written.role.isBlockLinear && $0.written.isMatrix
    }.map(\.written.module)
    switch target {
    case .compressedTensors:
      return try CompressedTensors(
        describing: steps.filter { $0.stored.isMatrix }.map { ($0.written, $0.scheme) },
        tiedHead: tiedHead)?.quantizationConfig
    case .gptq, .gptqV2:
      let all = layouts.compactMap { $0 as? GPTQLayout }
      let common = Self.commonest(all.map { Unscaled($0) })
      var rules = dense.map { GPTQConfiguration.Rule(pattern: Self.pattern($0), layout: nil) }
      for (step, layout) in zip(quantized, all) where Unscaled(layout) != common {
        rules.append(.init(pattern: Self.pattern(step.written.module), layout: layout))
      }
      guard let layout = all.first(where: { Unscaled($0) == common }) else { return nil }
      return try GPTQConfiguration(
        layout: layout, rules: rules, isSymmetric: !quantized.contains(where: \.isAsymmetric),
        hasActivationOrder: quantized.contains(where: \.hasColumnOrder),
        includesHead: quantized.contains { $0.written.role == .head }
      ).json(quantizer: "pare:\(PareVersion.current)")
    case .awq:
      guard let layout = first as? AWQLayout else { return nil }
      return AWQConfiguration(layout: layout, dense: dense).json
    case .mlx:
      let all = layouts.compactMap { $0 as? MLXLayout }
      let common = Self.commonest(all.map { [$0.bits, $0.groupSize] })
      guard let layout = all.first(where: { [$0.bits, $0.groupSize] == common }) else {
        return nil
      }
      let others = zip(quantized, all).filter { [$0.1.bits, $0.1.groupSize] != common }
      return MLXConfiguration(
        layout: layout, exceptions: others.map { ($0.0.written.module, $0.1) }
      ).json
    }
  }

  /// What a description of GPTQ says of a layout: not the type of scales.
  private struct Unscaled: Hashable {
    var bits: Int
    var groupSize: Int?

    init(_ layout: GPTQLayout) { (bits, groupSize) = (layout.bits, layout.groupSize) }
  }

  private static func pattern(_ module: String) -> String {
    module.split(separator: ".", omittingEmptySubsequences: false).joined(separator: "\\.") + "$"
  }

  /// The value that comes most often, the first of several.
  private static func commonest<Value: Hashable>(_ values: [Value]) -> Value? {
    var counts: [Value: Int] = [:]
    for value in values { counts[value, default: 0] += 1 }
    let most = counts.values.max()
    return values.first { counts[$0] == most }
  }
}
