/// What methods may rely on inside a block, declared by the configuration so that no method ever
/// matches a tensor's name.
public struct BlockStructure: Sendable {
  /// Matrices that multiply one and the same input, and where that input comes from.
  public struct Feed: Sendable {
    public enum Source: Sendable {
      /// The output of a norm: a per-channel factor folds into its weight.
      case norm(NormConfiguration)
      /// The output of a matrix, only mixed or scaled on its way: a factor folds into its rows.
      /// Each unit of the axis serves `repeats` runs of the consumers' input channels (grouped heads).
      case linear(Axis, repeats: Int)
      /// An activation or the residual stream stands before; nothing can absorb a factor.
      case unfoldable
    }
    public var source: Source
    public var consumers: [LinearConfiguration]
  }

  /// One axis of one tensor that shrinks when a dimension of the block does.
  public struct Axis: Sendable {
    public enum Side: Sendable { case outputs, inputs }
    public var linear: LinearConfiguration
    public var side: Side
    /// Offset of the dimension's first element along the axis (fused matrices hold several).
    public var offset: Int
    /// Consecutive elements of the axis that belong to one unit of the dimension.
    public var elementsPerUnit: Int
    /// Distance between the first elements of neighbouring units.
    public var stride: Int
  }

  /// A dimension that can be narrowed without touching the rest of the model: all its axes together.
  public struct CoupledDimension: Sendable {
    /// `key-value heads` (each with its group of query heads) or `intermediate`.
    public var name: String
    public var units: Int
    public var axes: [Axis]
  }

  public var feeds: [Feed]
  public var dimensions: [CoupledDimension]
  public var heads: Int
  public var keyValueHeads: Int
  public var headDim: Int
  /// Query heads that share one key and value head.
  public var headsPerGroup: Int { heads / keyValueHeads }
}

extension BlockConfiguration {
  public var structure: BlockStructure {
    BlockStructure(
      feeds: feeds, dimensions: [headDimension, intermediateDimension],
      heads: attention.heads, keyValueHeads: attention.keyValueHeads, headDim: attention.headDim)
  }

  private var feeds: [BlockStructure.Feed] {
    func source(_ norm: NormConfiguration?) -> BlockStructure.Feed.Source {
      norm.map { .norm($0) } ?? .unfoldable
    }
    // The attention output is a mixture of value rows, so a factor folds into those. Of a gated
    // pair only `up` passes a factor on unchanged; without a gate the activation stops it.
    let size = feedForward.intermediateSize
    let isFused = feedForward.inputs.count == 1
    let up = BlockStructure.Axis(
      linear: feedForward.inputs[feedForward.inputs.count - 1], side: .outputs,
      offset: isFused ? size : 0, elementsPerUnit: 1, stride: 1)
    return [
      .init(source: source(attentionNorms.before), consumers: attention.inputs),
      .init(
        source: .linear(valueRows, repeats: attention.heads / attention.keyValueHeads),
        consumers: [attention.output]),
      .init(source: source(feedForwardNorms.before), consumers: feedForward.inputs),
      .init(
        source: feedForward.isGated ? .linear(up, repeats: 1) : .unfoldable,
        consumers: [feedForward.down]),
    ]
  }

  /// Rows of the value matrix, head by head.
  private var valueRows: BlockStructure.Axis {
    let a = attention
    let (offset, stride) =
      switch a.layout {
      case .separate: (0, a.headDim)
      case .blocks: ((a.heads + a.keyValueHeads) * a.headDim, a.headDim)
      case .perHead: (2 * a.headDim, 3 * a.headDim)
      }
    return .init(
      linear: a.inputs[a.inputs.count - 1], side: .outputs, offset: offset,
      elementsPerUnit: a.headDim, stride: stride)
  }

  private var headDimension: BlockStructure.CoupledDimension {
    let a = attention
    let group = a.heads / a.keyValueHeads * a.headDim
    func rows(_ linear: LinearConfiguration, _ elements: Int, offset: Int = 0)
      -> BlockStructure.Axis
    {
      .init(
        linear: linear, side: .outputs, offset: offset, elementsPerUnit: elements,
        stride: elements)
    }
    var axes: [BlockStructure.Axis]
    switch a.layout {
    case .separate:
      axes = [rows(a.inputs[0], group), rows(a.inputs[1], a.headDim), valueRows]
    case .blocks:
      let queries = a.heads * a.headDim
      axes = [
        rows(a.inputs[0], group), rows(a.inputs[0], a.headDim, offset: queries),
        valueRows,
      ]
    case .perHead:
      axes = [rows(a.inputs[0], 3 * a.headDim)]
    }
    axes.append(
      .init(linear: a.output, side: .inputs, offset: 0, elementsPerUnit: group, stride: group))
    return .init(name: "key-value heads", units: a.keyValueHeads, axes: axes)
  }

  private var intermediateDimension: BlockStructure.CoupledDimension {
    let size = feedForward.intermediateSize
    let isFused = feedForward.isGated && feedForward.inputs.count == 1
    var axes = feedForward.inputs.map {
      BlockStructure.Axis(linear: $0, side: .outputs, offset: 0, elementsPerUnit: 1, stride: 1)
    }
    if isFused {
      axes.append(
        .init(
          linear: feedForward.inputs[0], side: .outputs, offset: size, elementsPerUnit: 1,
          stride: 1))
    }
    axes.append(
      .init(linear: feedForward.down, side: .inputs, offset: 0, elementsPerUnit: 1, stride: 1))
    return .init(name: "intermediate", units: size, axes: axes)
  }
}
