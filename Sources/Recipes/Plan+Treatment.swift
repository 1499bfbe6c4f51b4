package import Calibration
import Models

extension Plan {
  /// Whether samples must pass the model to carry this plan out.
  public var needsWalk: Bool {
    guard !recipe.needsAllocation else { return false }
    return recipe.needsCalibration || recipe.hasForms
  }

  /// What the plan does to each block.
  package var treatment: BlockTreatment {
    var treatment = BlockTreatment()
    var rowOfModule: [String: Row] = [:]
    for row in rows where row.isQuantized { rowOfModule[row.tensor.module] = row }
    let planned = rowOfModule
    for stage in recipe.stages {
      switch stage {
      case .smooth(let stage): treatment.scalings.append(stage.scaling)
      case .quantize(let stage):
        if let scaling = stage.ownScaling { treatment.scalings.append(scaling) }
        if let method = stage.blockMethod { treatment.blockMethods.append(method) }
      case .correct(let stage): treatment.correction = stage.correction
      case .rotate, .cut, .distill: break
      }
    }
    treatment.codec = { linear in
      guard case .quantize(let codec, _)? = planned[linear.name]?.action else { return nil }
      return codec
    }
    treatment.method = { linear in
      guard let row = planned[linear.name], case .quantize(let codec, let stage) = row.action
      else { return nil }
      return stage.weightMethod(codec, role: linear.role)
    }
    treatment.activations = { linear in
      guard case .quantize(_, let stage)? = planned[linear.name]?.action else { return nil }
      return stage.activationScheme
    }
    treatment.seed = recipe.seed
    return treatment
  }
}
