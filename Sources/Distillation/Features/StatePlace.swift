package import Tensors

/// A hidden state of a pass.
package enum StatePlace: Sendable, Hashable {
  /// What the first block reads.
  case embedding
  /// The output of a block, from 0.
  case block(Int)
  /// After the final norm.
  case final
}

extension PassStates {
  /// - Throws: `missingStates` where the pass did not keep it.
  package func state(at place: StatePlace) throws(DistillationError) -> Tensor {
    switch place {
    case .embedding:
      if let embedding { return embedding }
      throw .missingStates("the embedding layer's output")
    case .block(let index):
      if blocks.indices.contains(index) { return blocks[index] }
      throw .missingStates("the output of block \(index)")
    case .final:
      if let final { return final }
      throw .missingStates("the states after the final norm")
    }
  }

  /// - Throws: `missingStates` where the pass did not keep it.
  package func attention(of block: Int) throws(DistillationError) -> AttentionStates {
    guard attention.indices.contains(block) else {
      throw .missingStates("queries, keys and values of block \(block)")
    }
    return attention[block]
  }
}

/// The share of each row in a mean over the rows that count, by their weights.
struct RowShares {
  let shares: [Float]

  /// nil where no row counts.
  init?(_ weights: [Float]) {
    let total = weights.reduce(0.0) { $0 + Double($1) }
    guard total > 0 else { return nil }
    shares = weights.map { Float(Double($0) / total) }
  }

  /// Those of one text, times a factor.
  func of(_ segment: Range<Int>, times factor: Double) -> [Float] {
    shares[segment].map { Float(Double($0) * factor) }
  }

  /// The texts of which at least one row counts.
  func counted(_ segments: [Range<Int>]) -> [Range<Int>] {
    segments.filter { shares[$0].contains { $0 != 0 } }
  }
}

extension Tensor {
  /// A loss over nothing.
  static var noLoss: Tensor { Tensor([0], shape: [1]) }
}
