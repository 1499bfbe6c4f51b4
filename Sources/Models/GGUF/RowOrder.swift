package import Tensors

/// Where GGUF puts the rows of a matrix that Hugging Face orders otherwise. Only whole rows move, so
/// packed ones need no decoding.
package enum RowOrder: Sendable {
  /// Rotated pairs lie side by side: `[heads, 2, headDim / 2]` becomes `[heads, headDim / 2, 2]`.
  case rotaryPairs(headDim: Int)
  /// Queries, keys and values of each head, `[heads, 3, headDim]`, become `[3, heads, headDim]`.
  case fusedHeads(headDim: Int)

  /// The GGUF row of each Hugging Face row; nil where the rows are no whole number of heads.
  package func rows(_ count: Int) -> [Int]? {
    switch self {
    case .rotaryPairs(let headDim):
      guard headDim > 0, headDim % 2 == 0, count % headDim == 0 else { return nil }
      return (0..<count).map { row in
        let (head, within) = row.quotientAndRemainder(dividingBy: headDim)
        let (half, pair) = within.quotientAndRemainder(dividingBy: headDim / 2)
        return head * headDim + 2 * pair + half
      }
    case .fusedHeads(let headDim):
      guard headDim > 0, count % (3 * headDim) == 0 else { return nil }
      let heads = count / (3 * headDim)
      return (0..<count).map { row in
        let (unit, within) = row.quotientAndRemainder(dividingBy: headDim)
        let (head, part) = unit.quotientAndRemainder(dividingBy: 3)
        return (part * heads + head) * headDim + within
      }
    }
  }

  /// The Hugging Face row of each GGUF row.
  package func inverseRows(_ count: Int) -> [Int]? {
    rows(count).map { rows in
      var inverse = [Int](repeating: 0, count: count)
      for (huggingFace, gguf) in rows.enumerated() { inverse[gguf] = huggingFace }
      return inverse
    }
  }
}

extension Tensor {
  /// The rows at these indices, bytes unchanged. The elements of a vector count as rows.
  package func gatheringRows(_ indices: [Int]) -> Tensor {
    let rowBytes = byteCount / max(shape[0], 1)
    let shape = [indices.count] + shape.dropFirst()
    return Tensor(dtype: dtype, shape: shape) { target in
      guard let base = target.baseAddress, rowBytes > 0 else { return }
      for (position, index) in indices.enumerated() {
        (base + position * rowBytes).copyMemory(
          from: rawPointer + index * rowBytes, byteCount: rowBytes)
      }
    }
  }
}
