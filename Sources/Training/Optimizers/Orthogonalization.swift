import CKernels
import Tensors

/// Nearly U Vᵀ of a matrix G = U S Vᵀ by five Newton–Schulz steps
/// X ← a X + (b X Xᵀ + c (X Xᵀ)²) X from X = G / ‖G‖ (Jordan et al. 2024). The coefficients make small
/// singular values grow fastest; large ones settle between about 0.7 and 1.2 rather than at 1.
///
/// - Parameter matrix: `[A, B]`, float32; products are of size min(A, B).
/// - Returns: `[A, B]`
func orthogonalized(_ matrix: Tensor) -> Tensor {
  let (a, b, c): (Float, Float, Float) = (3.4445, -4.7750, 2.0315)
  guard matrix.count > 0 else { return matrix }
  let (rows, columns) = (matrix.shape[0], matrix.shape[1])
  let isTall = rows > columns
  let norm = max(Float(sumOfSquares(matrix).squareRoot()), 1e-7)
  var X = matrix.scaled(by: 1 / norm)
  for _ in 0..<5 {
    let A = isTall ? Tensor.matmul(X.transposed(), X) : Tensor.matmul(X, transposing: X)
    let M = A.scaled(by: b) + Tensor.matmul(A, A).scaled(by: c)
    X = X.scaled(by: a) + (isTall ? Tensor.matmul(X, M) : Tensor.matmul(M, X))
  }
  return X
}

/// In double, in an order that the count alone decides.
func sumOfSquares(_ tensor: Tensor) -> Double {
  let size = StoredNumbers.pieceSize
  let (count, source) = (tensor.count, Unshared(tensor.floats))
  return Parallel.map((count + size - 1) / size) { piece in
    pare_sum_of_squares(source.value + piece * size, min(size, count - piece * size))
  }.reduce(0, +)
}
