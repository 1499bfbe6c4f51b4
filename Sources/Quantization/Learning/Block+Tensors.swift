import Models
import Tensors
import Training

extension Block {
  /// This block with its matrices replaced, in the order of computation.
  func mappingLinears(_ replace: (Int, Linear) throws -> Linear) rethrows -> Block {
    var block = self
    var index = 0
    func next(_ linear: Linear) throws -> Linear {
      defer { index += 1 }
      return try replace(index, linear)
    }
    for input in attentionInputs.indices {
      block.attentionInputs[input] = try next(attentionInputs[input])
    }
    block.attentionOutput = try next(attentionOutput)
    for input in feedForwardInputs.indices {
      block.feedForwardInputs[input] = try next(feedForwardInputs[input])
    }
    block.feedForwardOutput = try next(feedForwardOutput)
    return block
  }

  /// This block with its tensors replaced, in an order that is always the same: matrices kept as
  /// numbers, biases, norms. Matrices in packed forms stay.
  func mappingTensors(_ replace: (Tensor) throws -> Tensor) rethrows -> Block {
    func norm(_ norm: Norm?) throws -> Norm? {
      guard var replaced = norm else { return nil }
      replaced.weight = try replaced.weight.map(replace)
      replaced.bias = try replaced.bias.map(replace)
      return replaced
    }
    func norms(_ norms: Norms) throws -> Norms {
      var replaced = norms
      replaced.before = try norm(norms.before)
      replaced.output = try norm(norms.output)
      replaced.after = try norm(norms.after)
      return replaced
    }
    var block = try mappingLinears { _, linear in
      var linear = linear
      switch linear.weight {
      case let weight as FakeQuantizedWeight:
        linear.weight = weight.withValues(try replace(weight.values))
      case let weight as DenseWeight: linear.weight = DenseWeight(try replace(weight.tensor))
      case let weight as TransposedWeight:
        linear.weight = TransposedWeight(try replace(weight.tensor))
      default: break
      }
      linear.bias = try linear.bias.map(replace)
      return linear
    }
    block.attentionNorms = try norms(attentionNorms)
    block.feedForwardNorms = try norms(feedForwardNorms)
    block.queryNorm = try norm(queryNorm)
    block.keyNorm = try norm(keyNorm)
    return block
  }
}

extension Block {
  /// This block with matrices that were changed but not rounded in the form and type they had.
  ///
  /// - Parameter rounded: matrices that have their stored form already.
  func keepingTypes(of original: Block, rounded: [Int]) -> Block {
    let before = original.linears
    return mappingLinears { index, linear in
      guard !rounded.contains(index), let weight = linear.weight as? DenseWeight else {
        return linear
      }
      var linear = linear
      let types: [DType] = [.float16, .bfloat16]
      switch before[index].weight {
      case let old as DenseWeight where types.contains(old.tensor.dtype):
        linear.weight = DenseWeight(weight.tensor.converted(to: old.tensor.dtype))
      case let old as TransposedWeight:
        let type = types.contains(old.tensor.dtype) ? old.tensor.dtype : .float32
        linear.weight = TransposedWeight(weight.tensor.transposed.converted(to: type))
      default: break
      }
      return linear
    }
  }
}

extension Tensor {
  /// A float32 matrix the other way round.
  fileprivate var transposed: Tensor {
    let (rows, columns) = (rows, columns)
    return Tensor(shape: [columns, rows]) { target in
      for row in 0..<rows {
        for column in 0..<columns { target[column * rows + row] = floats[row * columns + column] }
      }
    }
  }
}
