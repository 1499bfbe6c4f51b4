public import Tensors

/// `W = W₀ + W₁ + …`: a quantized matrix and what it misses, as a product of thin matrices or as
/// single weights.
///
/// The first part keeps its components' names, so that a reader who knows only its form still finds
/// it; those of part i begin with `part_i.`.
public struct SumWeight: StoredWeight {
  public let parts: [any StoredWeight]

  /// - Parameter parts: at least one, all of one shape; sums among them are taken apart.
  /// - Throws: `CodecError.wrongShape`, `.unsupportedSetting`.
  public init(_ parts: [any StoredWeight]) throws(CodecError) {
    let parts = parts.flatMap { ($0 as? SumWeight)?.parts ?? [$0] }
    guard let first = parts.first else {
      throw .unsupportedSetting("a sum of no matrices has no shape; give at least one.")
    }
    for (index, part) in parts.enumerated()
    where part.outputs != first.outputs || part.inputs != first.inputs {
      throw .wrongShape(
        component: Self.prefix(index), expected: [first.outputs, first.inputs],
        actual: [part.outputs, part.inputs])
    }
    self.parts = parts
  }

  private init(checked parts: [any StoredWeight]) { self.parts = parts }

  /// What the names of a part's components begin with.
  public static func prefix(_ part: Int) -> String { part == 0 ? "" : "part_\(part)." }

  /// The components of each of `count` parts, by the names they have alone.
  /// - Throws: `CodecError.unexpected` for a part beyond them.
  public static func split(_ components: [String: Tensor], count: Int)
    throws(CodecError) -> [[String: Tensor]]
  {
    var result = [[String: Tensor]](repeating: [:], count: count)
    for (name, tensor) in components.sorted(by: { $0.key < $1.key }) {
      let index = (1..<max(count, 1)).first { name.hasPrefix(prefix($0)) } ?? 0
      guard index > 0 || !name.hasPrefix("part_") else { throw .unexpected(component: name) }
      result[index][String(name.dropFirst(prefix(index).count))] = tensor
    }
    return result
  }

  public var outputs: Int { parts[0].outputs }
  public var inputs: Int { parts[0].inputs }
  public var storedBytes: Int { parts.reduce(0) { $0 + $1.storedBytes } }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    parts.enumerated().flatMap { index, part in
      part.encoded().map { (Self.prefix(index) + $0.suffix, $0.tensor) }
    }
  }

  public func multiply(_ x: Tensor) -> Tensor {
    parts.dropFirst().reduce(parts[0].multiply(x)) { $0 + $1.multiply(x) }
  }

  public func inputGradient(_ dy: Tensor) -> Tensor {
    parts.dropFirst().reduce(parts[0].inputGradient(dy)) { $0 + $1.inputGradient(dy) }
  }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    parts[0].dequantizeRows(range, into: target)
    let count = range.count * inputs
    guard parts.count > 1, count > 0 else { return }
    withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { scratch in
      guard let values = scratch.baseAddress else { return }
      for part in parts.dropFirst() {
        part.dequantizeRows(range, into: values)
        for index in 0..<count { target[index] += values[index] }
      }
    }
  }

  public var detached: any Weight {
    SumWeight(checked: parts.map { ($0.detached as? any StoredWeight) ?? $0 })
  }

  public func giveBack() { for part in parts { part.giveBack() } }
}
