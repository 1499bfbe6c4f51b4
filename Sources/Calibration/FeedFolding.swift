import Codecs
import Models
import Tensors

/// Puts the factors of a `ChannelScaling` into a block: columns of the matrices that read an input are
/// multiplied by `s`, and what produces the input is divided by it. The block computes what it did.
struct FeedFolding {
  /// Type a tensor is stored in, by its declared name: what is changed but stays dense is rounded to
  /// it at once, so that later blocks see what a file will hold.
  let storedType: (String) -> DType

  /// Which channels must get equal factors: those that one row of the source serves. Nil where the
  /// channels are free.
  static func units(of feed: BlockStructure.Feed) -> [Int]? {
    guard case .linear(let axis, let repeats) = feed.source, repeats > 1 else { return nil }
    let inputs = feed.consumers[0].inputs
    let size = axis.elementsPerUnit
    return (0..<inputs).map { channel in
      channel / (size * repeats) * size + channel % size
    }
  }

  /// Why nothing can absorb a factor; nil where something can.
  static func obstacle(_ feed: BlockStructure.Feed, _ configuration: BlockConfiguration) -> String?
  {
    switch feed.source {
    case .unfoldable: "an activation or the residual stream stands before it"
    case .linear: nil
    case .norm(let norm):
      if configuration.residualIsNormed {
        "the norm before it is the residual stream too"
      } else if case .layer(_, false) = norm.kind {
        "the norm before it has no weight"
      } else {
        nil
      }
    }
  }

  /// - Returns: declared names of the tensors that changed.
  func fold(_ s: [Float], _ feed: BlockStructure.Feed, into block: inout Block) -> Set<String> {
    var changed: Set<String> = []
    let consumers = Set(feed.consumers.map(\.name))
    block.updateLinears { linear in
      guard consumers.contains(linear.configuration.name) else { return }
      linear.weight = dense(linear, linear.weight.dequantized().scalingColumns(by: s))
      changed.insert("\(linear.configuration.name).weight")
    }
    switch feed.source {
    case .unfoldable: preconditionFailure("nothing can absorb these factors")
    case .norm(let source):
      block.updateNorms { norm in
        guard norm.configuration.name == source.name else { return }
        changed.formUnion(divide(&norm, by: s))
      }
    case .linear(let axis, let repeats):
      let inverse = Self.rowFactors(axis, repeats: repeats, s)
      block.updateLinears { linear in
        guard linear.configuration.name == axis.linear.name else { return }
        let scaled = Self.scalingRows(linear.weight, by: inverse)
        linear.weight = dense(linear, scaled)
        changed.insert("\(linear.configuration.name).weight")
        guard let bias = linear.bias else { return }
        let name = "\(linear.configuration.name).bias"
        linear.bias = rounded(
          Tensor(zip(Array(bias.widened().buffer), inverse).map { $0 * $1 }, shape: bias.shape),
          name)
        changed.insert(name)
      }
    }
    return changed
  }

  /// `1 / s` for the rows of the source that serve scaled channels, 1 for its other rows.
  private static func rowFactors(_ axis: BlockStructure.Axis, repeats: Int, _ s: [Float]) -> [Float]
  {
    var factors = [Float](repeating: 1, count: axis.linear.outputs)
    let size = axis.elementsPerUnit
    for unit in 0..<s.count / (size * repeats) {
      for element in 0..<size {
        factors[axis.offset + unit * axis.stride + element] =
          1 / s[unit * repeats * size + element]
      }
    }
    return factors
  }

  private func divide(_ norm: inout Norm, by s: [Float]) -> Set<String> {
    var changed: Set<String> = []
    var offset: Float = 0
    if case .rootMeanSquare(let added) = norm.configuration.kind { offset = added }
    if let weight = norm.weight {
      let name = "\(norm.configuration.name).weight"
      norm.weight = rounded(
        Tensor(
          zip(weight.buffer, s).map { (offset + $0) / $1 - offset }, shape: weight.shape), name)
      changed.insert(name)
    }
    if let bias = norm.bias {
      let name = "\(norm.configuration.name).bias"
      norm.bias = rounded(
        Tensor(zip(bias.buffer, s).map { $0 / $1 }, shape: bias.shape), name)
      changed.insert(name)
    }
    return changed
  }

  /// A matrix `[out, in]` in the place of `linear`'s, lying as that lies.
  private func dense(_ linear: Linear, _ matrix: Tensor) -> any Weight {
    linear.weight is TransposedWeight ? TransposedWeight(matrix.transposed()) : DenseWeight(matrix)
  }

  func rounded(_ weight: any Weight, _ name: String) -> any Weight {
    switch weight {
    case let dense as DenseWeight: DenseWeight(rounded(dense.tensor, name))
    case let transposed as TransposedWeight: TransposedWeight(rounded(transposed.tensor, name))
    default: weight
    }
  }

  private func rounded(_ tensor: Tensor, _ name: String) -> Tensor {
    let type = storedType(name)
    return type == .float32 ? tensor : tensor.converted(to: type).widened()
  }

  private static func scalingRows(_ weight: any Weight, by factors: [Float]) -> Tensor {
    let inputs = weight.inputs
    let matrix = Unshared(weight.dequantized())
    return Tensor(shape: [weight.outputs, inputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(factors.count, of: max(1, 65_536 / max(inputs, 1))) { rows in
        for row in rows {
          let (from, to) = (matrix.value.floats + row * inputs, target.value + row * inputs)
          for column in 0..<inputs { to[column] = from[column] * factors[row] }
        }
      }
    }
  }
}

extension Tensor {
  /// The numbers of a float32 tensor.
  var buffer: UnsafeBufferPointer<Float> { UnsafeBufferPointer(start: floats, count: count) }
}
