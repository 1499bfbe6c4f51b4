public import Codecs
public import Tensors

extension CompressedTensors.Scheme: MatrixLayout {
  public var summary: String {
    let grid =
      switch granularity {
      case .group(let size): "g\(size)"
      case .channel: "per channel"
      case .tensor: "per tensor"
      }
    switch floats {
    case .float8: return "FP8 \(grid)"
    case .nvfp4: return "NVFP4 \(grid)"
    case .mxfp4: return "MXFP4 \(grid)"
    case nil: return "\(bits) bits \(grid)\(isSymmetric ? "" : " asymmetric")"
    }
  }

  public func decode(components: [String: Tensor]) throws(CodecError) -> any StoredWeight {
    let scaleType = components["weight_scale"]?.dtype ?? .bfloat16
    guard let floats else { return try codec(scaleType: scaleType).decode(components) }
    return try FloatGroups(floats, granularity: granularity, scaleType: scaleType)
      .decode(components)
  }

  /// How a matrix in memory is stored; nil for forms that are not described here.
  package init?(of weight: any Weight) {
    switch weight {
    case let integers as GroupQuantizedWeight: self.init(of: integers)
    case let floats as FloatGroupsWeight: self.init(floats.codec)
    default: return nil
    }
  }

  /// How a matrix of integers in memory is stored.
  package init(of weight: GroupQuantizedWeight) {
    let codec = weight.codec
    self.init(
      format: codec.layout, bits: codec.bits, isSymmetric: codec.isSymmetric,
      granularity: codec.granularity, hasColumnOrder: weight.columnGroups != nil)
  }
}

extension CompressedTensors {
  /// A description of matrices as they are stored; nil where all are dense.
  ///
  /// Readers walk their own Linear layers, so every one left dense is on the ignore list, also a head
  /// that shares the embedding's matrix.
  ///
  /// - Parameter modules: every matrix of the model; the scheme nil where it is dense.
  package init?(
    describing modules: [(tensor: ModelTensor, scheme: Scheme?)], tiedHead: String?
  ) throws(ModelError) {
    var groups: [Group] = []
    for (tensor, scheme) in modules {
      guard let scheme else { continue }
      if let index = groups.firstIndex(where: { $0.scheme == scheme }) {
        groups[index].targets.append(tensor.module)
      } else {
        groups.append(Group(targets: [tensor.module], scheme: scheme))
      }
    }
    guard !groups.isEmpty else { return nil }
    var ignored = modules.filter { $0.scheme == nil && $0.tensor.isLinearLayer }
      .map(\.tensor.module)
    if groups.count == 1, modules.allSatisfy({ $0.scheme == nil || $0.tensor.isLinearLayer }) {
      groups[0].targets = ["Linear"]
      if let tiedHead { ignored.append(tiedHead) }
    }
    try self.init(groups: groups, ignore: ignored)
  }
}

extension ModelTensor {
  /// Whether readers see a Linear layer here.
  package var isLinearLayer: Bool {
    isMatrix && !isTransposed && role != .embedding && role != .positionEmbedding
  }
}
