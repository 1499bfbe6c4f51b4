import Codecs
package import Models
package import Tensors

extension LanguageModel {
  /// This model with the scales of its group-quantized matrices as parameters, and with them the
  /// norms: what can be trained without changing the form or the size of a quantized model.
  ///
  /// - Throws: `TrainingError.badSetting` where no matrix is group-quantized.
  package func withTrainedScales() throws(TrainingError) -> (
    model: LanguageModel, parameters: [Parameter]
  ) {
    var parameters: [Parameter] = []
    var matrices = 0
    func parameter(_ name: String, _ initial: Tensor) -> Tensor {
      let parameter = Parameter(
        name: name, initial: initial, decays: false, isBlockMatrix: false)
      parameters.append(parameter)
      return parameter.tensor
    }
    let model = mapped(
      matrix: { declaration, weight in
        guard let groups = weight as? GroupQuantizedWeight, groups.columnGroups == nil else {
          return weight
        }
        matrices += 1
        let scales = parameter("\(declaration.module).weight_scale", groups.scales.widened())
        return TrainedScalesWeight(groups, scales: scales)
      },
      vector: { declaration, tensor in
        declaration.role == .norm ? parameter(declaration.name, tensor) : tensor
      })
    guard matrices > 0 else {
      throw .badSetting(
        "--train", value: "scales", expected: "used with a model that pare quantize made")
    }
    return (model, parameters)
  }

  /// Trained scales rounded to what a file stores: a quantized model as any other.
  package var settled: LanguageModel {
    mapped(matrix: { ($1 as? TrainedScalesWeight)?.settled ?? $1 }, vector: { $1.detached })
  }
}
