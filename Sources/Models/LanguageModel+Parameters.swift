package import Tensors

extension LanguageModel {
  /// This model with some of its tensors as parameters: memory of their own that an optimizer writes,
  /// and places where gradients arrive. Matrices in packed forms have no such tensor and stay.
  ///
  /// - Parameters:
  ///   - dtype: of the parameters, float32 or bfloat16. Norms and biases are float32 always.
  ///   - isTrained: which tensors; the others stay as they are.
  /// - Returns: the model, whose computations record, and its parameters in the order of computation.
  package func withParameters(
    _ dtype: DType = .float32, where isTrained: (ModelTensor) -> Bool = { _ in true }
  ) -> (model: LanguageModel, parameters: [Parameter]) {
    var parameters: [Parameter] = []
    func parameter(_ declaration: ModelTensor, _ tensor: Tensor, _ dtype: DType) -> Tensor {
      guard isTrained(declaration) else { return tensor }
      let parameter = Parameter(
        name: declaration.name, initial: tensor, dtype: dtype,
        decays: declaration.isMatrix,
        isBlockMatrix: declaration.isMatrix && declaration.role.isBlockLinear)
      parameters.append(parameter)
      return parameter.tensor
    }
    let model = mapped(
      matrix: { declaration, weight in
        switch weight {
        case let dense as DenseWeight:
          DenseWeight(parameter(declaration, dense.tensor, dtype))
        case let transposed as TransposedWeight:
          TransposedWeight(parameter(declaration, transposed.tensor, dtype))
        default: weight
        }
      },
      vector: { parameter($0, $1, .float32) })
    return (model, parameters)
  }

  /// The same numbers without places in a computation, so that running it records nothing. Parameters
  /// are shared, not copied.
  package var detached: LanguageModel {
    mapped(matrix: { $1.detached }, vector: { $1.detached })
  }
}
