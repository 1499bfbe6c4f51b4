public import Tensors

/// Token vectors, with whatever stands between the table and the first block.
public struct Embedding: Sendable {
  public let configuration: EmbeddingConfiguration
  /// `[vocabulary, width]`
  public var table: any Weight
  public var norm: Norm?
  public var projection: Linear?
  /// `[positions + offset, hidden]`
  public var positions: Tensor?

  /// - Parameter start: position of the first token.
  /// - Returns: `[tokens, hidden]`
  public func callAsFunction(_ tokens: [Int], start: Int) -> Tensor {
    callAsFunction(tokens, positions: tokens.indices.map { $0 + start })
  }

  /// - Parameter places: each token's position in its text.
  /// - Returns: `[tokens, hidden]`
  package func callAsFunction(_ tokens: [Int], positions places: [Int]) -> Tensor {
    var x = table.rows(at: tokens)
    if configuration.scale != 1 { x = x.scaled(by: configuration.scale) }
    if let norm { x = norm(x) }
    if let projection { x = projection(x) }
    if let positions, let learned = configuration.positions {
      x = x + positions.rows(at: places.map { $0 + learned.offset })
    }
    return x
  }
}
