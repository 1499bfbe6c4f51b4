import Calibration
import Codecs
import Models
import Tensors
import Training

/// A matrix of a block that will be rounded.
struct BlockMatrix {
  /// Among the block's matrices in the order of computation.
  let index: Int
  let name: String
  let codec: AffineGroups
  /// float32 `[outputs, inputs]`, without a place in a computation.
  let dense: Tensor

  /// All matrices of the problem's block that have a codec.
  /// - Throws: `CompressionError.matrix` where one cannot be stored: its shape or a number that is not
  ///   finite.
  static func all(of problem: BlockProblem) throws(CompressionError) -> [BlockMatrix] {
    var matrices: [BlockMatrix] = []
    for (index, linear) in problem.block.linears.enumerated() {
      guard let codec = problem.codec(linear.configuration) else { continue }
      let matrix = BlockMatrix(
        index: index, name: linear.configuration.name, codec: codec,
        dense: linear.weight.dequantized())
      _ = try matrix.naming { () throws(CodecError) in try codec.encode(matrix.dense) }
      matrices.append(matrix)
    }
    return matrices
  }

  /// Puts this matrix's name before an error.
  func naming<R>(_ body: () throws(CodecError) -> R) throws(CompressionError) -> R {
    do throws(CodecError) {
      return try body()
    } catch {
      throw .matrix(name: name, reason: error.description)
    }
  }
}

extension Block {
  /// This block with rounded matrices in the places of dense ones.
  func with(_ weights: [FakeQuantizedWeight], for matrices: [BlockMatrix]) -> Block {
    mappingLinears { index, linear in
      guard let place = matrices.firstIndex(where: { $0.index == index }) else { return linear }
      var linear = linear
      linear.weight = weights[place]
      return linear
    }
  }

  /// This block with its rounded matrices as they are stored.
  ///
  /// - Parameter originals: what the errors are measured against, for each of `matrices`.
  func settled(_ matrices: [BlockMatrix], originals: [Tensor]) throws(CompressionError)
    -> (block: Block, errors: [String: CompressedWeight])
  {
    var errors: [String: CompressedWeight] = [:]
    var stored: [Int: GroupQuantizedWeight] = [:]
    let linears = linears
    for (matrix, original) in zip(matrices, originals) {
      guard let weight = linears[matrix.index].weight as? FakeQuantizedWeight else { continue }
      let settled = try matrix.naming { () throws(CodecError) in try weight.settled() }
      stored[matrix.index] = settled
      errors[matrix.name] = CompressedWeight(
        weight: settled, error: weight.error(against: original))
    }
    let block = mappingLinears { index, linear in
      var linear = linear
      if let weight = stored[index] { linear.weight = weight }
      return linear
    }
    return (block, errors)
  }
}
