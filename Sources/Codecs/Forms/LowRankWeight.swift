public import Tensors

/// `W = L · R` with L `[outputs, rank]` and R `[rank, inputs]`: two thin products in place of a
/// large one.
public struct LowRankWeight: StoredWeight {
  /// `[outputs, rank]`.
  public let left: Tensor
  /// `[rank, inputs]`.
  public let right: Tensor

  /// - Parameters:
  ///   - left: `[outputs, rank]`, float32, bfloat16 or float16.
  ///   - right: `[rank, inputs]`, likewise.
  public init(left: Tensor, right: Tensor) throws(CodecError) {
    self = try Self.decode([Suffix.left: left, Suffix.right: right])
  }

  private init(checkedLeft left: Tensor, right: Tensor) {
    self.left = left
    self.right = right
  }

  /// Names of the components, after the module's path.
  public enum Suffix {
    public static let left = "low_rank_left"
    public static let right = "low_rank_right"
  }

  public static func decode(_ components: [String: Tensor]) throws(CodecError) -> LowRankWeight {
    var reader = FormComponents(components)
    let right = try reader.takeNumbers(Suffix.right, [nil, nil])
    let left = try reader.takeNumbers(Suffix.left, [nil, right.shape[0]])
    try reader.finish()
    return LowRankWeight(checkedLeft: left, right: right)
  }

  public var outputs: Int { left.shape[0] }
  public var inputs: Int { right.shape[1] }
  public var rank: Int { right.shape[0] }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    [(Suffix.left, left), (Suffix.right, right)]
  }

  public func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    return x.multiplied(byTransposeOf: right).multiplied(byTransposeOf: left)
  }

  public func inputGradient(_ dy: Tensor) -> Tensor {
    dy.detached.multiplied(by: left.detached).multiplied(by: right.detached)
  }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    guard !range.isEmpty, inputs > 0 else { return }
    let rows = left.detached.rows(range).widened()
    let right = right.detached.widened()
    // Row by row, so that a row's numbers do not depend on those decoded beside it.
    for row in 0..<range.count {
      let line = target + row * inputs
      line.initialize(repeating: 0, count: inputs)
      for index in 0..<rank {
        let factor = rows.floats[row * rank + index]
        let source = right.floats + index * inputs
        for column in 0..<inputs { line[column] += factor * source[column] }
      }
    }
  }

  public var detached: any Weight {
    LowRankWeight(checkedLeft: left.detached, right: right.detached)
  }

  public func giveBack() {
    left.giveBack()
    right.giveBack()
  }
}
