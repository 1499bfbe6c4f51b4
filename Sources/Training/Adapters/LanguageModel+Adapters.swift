public import Codecs
public import Models
public import Tensors

/// A model whose frozen matrices have adapters, and what training them needs.
public struct AdaptedModel: Sendable {
  public var model: LanguageModel
  /// `A`, `B` and, for DoRA, `m` of each adapted matrix, in the order of computation, named as PEFT
  /// names them (`base_model.model.….lora_A.weight`). All float32; nothing else is trained.
  public var parameters: [Parameter]
  public var settings: AdapterSettings
  /// nil where nothing is left out. Its `pass` is set before each forward pass of the training.
  public var dropout: AdapterDropout?
}

extension LanguageModel {
  /// This model with adapters on some of its matrices, the rest frozen. It computes what it did: `B`
  /// starts as zeros, and `A` uniform in ±1/√inputs (He et al. 2015 with a = √5, as PEFT has it).
  ///
  /// - Parameters:
  ///   - targets: roles of the matrices that get adapters.
  ///   - isTarget: which of those.
  ///   - seed: of `A` and of dropout.
  ///   - codec: if given, the matrices inside blocks that are not stored in codes already are encoded
  ///     first (QLoRA), which does change what the model computes.
  /// - Throws: `TrainingError` if the settings or targets do not fit the model, or a matrix cannot be
  ///   encoded.
  public func withAdapters(
    _ settings: AdapterSettings, targets: Set<Role> = AdapterSettings.allBlockMatrices,
    seed: UInt64, quantizingBase codec: NF4? = nil,
    where isTarget: (ModelTensor) -> Bool = { _ in true }
  ) throws(TrainingError) -> AdaptedModel {
    try settings.check()
    try check(targets)
    var random = Xoshiro256(seed: seed)
    return try withAdapters(settings, seed: seed, quantizingBase: codec) { declaration, weight in
      guard targets.contains(declaration.role), isTarget(declaration) else { return nil }
      let bound = 1 / Double(max(weight.inputs, 1)).squareRoot()
      let down = Tensor(shape: [settings.rank, weight.inputs]) { target in
        for i in target.indices { target[i] = Float((2 * random.uniform() - 1) * bound) }
      }
      var magnitude: Tensor?
      if settings.isWeightDecomposed {
        let lengths = AdaptedWeight.squaredLengths(of: weight)
        magnitude = Tensor(lengths.map { Float($0.squareRoot()) }, shape: [lengths.count])
      }
      return AdapterTensors(
        down: down, up: .zeros([weight.outputs, settings.rank]), magnitude: magnitude)
    }
  }

  /// - Parameter tensors: the adapter's first values for a matrix, nil where it gets none. Called with
  ///   the base as it will be.
  func withAdapters(
    _ settings: AdapterSettings, seed: UInt64, quantizingBase codec: NF4?,
    _ tensors: (ModelTensor, any Weight) throws(TrainingError) -> AdapterTensors?
  ) throws(TrainingError) -> AdaptedModel {
    let dropout =
      settings.dropout > 0 ? AdapterDropout(rate: Float(settings.dropout), seed: seed) : nil
    var parameters: [Parameter] = []
    var count = 0
    func adapted(_ declaration: ModelTensor, _ weight: any Weight) throws(TrainingError)
      -> any Weight
    {
      guard !(weight is AdaptedWeight) else {
        throw .badAdapter(
          path: declaration.module, reason: "the matrix has an adapter already; merge it first")
      }
      var base = weight.detached
      if let codec, declaration.role.isBlockLinear {
        base = try encoded(base, by: codec, module: declaration.module)
      }
      guard let initial = try tensors(declaration, base) else { return base }
      func parameter(_ suffix: String, _ tensor: Tensor) -> Tensor {
        let isMatrix = tensor.shape.count == 2
        let parameter = Parameter(
          name: AdapterFolder.name(declaration.module, suffix), initial: tensor,
          decays: isMatrix, isBlockMatrix: isMatrix && declaration.role.isBlockLinear)
        parameters.append(parameter)
        return parameter.tensor
      }
      count += 1
      return AdaptedWeight(
        base: base, down: parameter(AdapterFolder.downSuffix, initial.down),
        up: parameter(AdapterFolder.upSuffix, initial.up),
        magnitude: initial.magnitude.map { parameter(AdapterFolder.magnitudeSuffix, $0) },
        scale: settings.scale, dropout: dropout, index: count)
    }
    // `mapped` rethrows any error; all of ours are of one type.
    let model: LanguageModel
    do {
      model = try mapped(
        matrix: { declaration, weight in try adapted(declaration, weight) },
        vector: { $1.detached })
    } catch let error as TrainingError {
      throw error
    } catch {
      throw .badAdapter(path: checkpoint.path, reason: "\(error)")
    }
    guard count > 0 else {
      throw .badAdapter(
        path: checkpoint.path, reason: "no matrix of the model has one of the roles asked for")
    }
    return AdaptedModel(
      model: model, parameters: parameters, settings: settings, dropout: dropout)
  }

  /// The adapters of this model in the order of computation.
  public var adapters: [(matrix: ModelTensor, weight: AdaptedWeight)] {
    var list: [(ModelTensor, AdaptedWeight)] = []
    _ = mapped(
      matrix: { declaration, weight in
        if let adapted = weight as? AdaptedWeight { list.append((declaration, adapted)) }
        return weight
      }, vector: { $1 })
    return list
  }

  /// A dense model that computes what this one does, adapters multiplied in and matrices in codes
  /// expanded.
  ///
  /// - Parameter dtype: of the matrices that are made; when nil, that of the base (of what it was encoded
  ///   from, if NF4), float32 for other codes. Other matrices stay as they are.
  public func merged(as dtype: DType? = nil) -> LanguageModel {
    mapped(
      matrix: { declaration, weight in
        let matrix: Tensor
        let type: DType
        switch weight {
        case is DenseWeight, is TransposedWeight: return weight.detached
        case let adapted as AdaptedWeight:
          matrix = adapted.merged()
          type = dtype ?? adapted.base.denseType
        default:
          matrix = expanded(of: weight)
          type = dtype ?? .float32
        }
        let stored = declaration.isTransposed ? matrix.transposed() : matrix
        let converted = stored.converted(to: type)
        return declaration.isTransposed ? TransposedWeight(converted) : DenseWeight(converted)
      }, vector: { $1.detached })
  }

  private func check(_ targets: Set<Role>) throws(TrainingError) {
    let linear = AdapterSettings.allBlockMatrices.union([
      .embeddingProjection, .headProjection, .head,
    ])
    if let wrong = targets.subtracting(linear).map(\.rawValue).min() {
      throw .badSetting(
        "a target of adapters", value: wrong, expected: "a matrix that multiplies activations")
    }
    if targets.contains(.head), configuration.head.isTied {
      throw .badSetting(
        "a target of adapters", value: "head",
        expected: "another matrix, because this model's head is its embedding")
    }
  }

  private func encoded(_ weight: any Weight, by codec: NF4, module: String) throws(TrainingError)
    -> any Weight
  {
    let matrix: Tensor
    switch weight {
    case let dense as DenseWeight: matrix = dense.tensor
    case let transposed as TransposedWeight: matrix = transposed.dequantized()
    default: return weight
    }
    do {
      let encoded = try codec.encode(matrix)
      weight.giveBack()
      return encoded
    } catch {
      throw .badAdapter(path: "\(checkpoint.path): \(module)", reason: error.description)
    }
  }
}

/// First values of an adapter.
struct AdapterTensors {
  var down: Tensor
  var up: Tensor
  var magnitude: Tensor?
}

extension Weight {
  /// What a dense matrix in this one's place is stored as.
  fileprivate var denseType: DType {
    let type =
      switch self {
      case let dense as DenseWeight: dense.tensor.dtype
      case let transposed as TransposedWeight: transposed.tensor.dtype
      case let codes as NF4Weight: codes.sourceType
      default: DType.float32
      }
    return [.float32, .bfloat16, .float16].contains(type) ? type : .float32
  }
}
