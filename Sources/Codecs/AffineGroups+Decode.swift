public import Tensors

extension AffineGroups {
  /// Every component is checked before any is used: presence, type, shape, and that `weight_shape`
  /// agrees with the rest. Codes, scales and zero points stay where they are (mapped).
  public func decode(_ components: [String: Tensor]) throws(CodecError) -> GroupQuantizedWeight {
    var rest = components
    func take(_ name: String) throws(CodecError) -> Tensor {
      guard let tensor = rest.removeValue(forKey: name) else { throw .missing(component: name) }
      return tensor
    }
    let codes: Tensor
    let outputs: Int
    let inputs: Int
    var hasGaps = false
    switch layout {
    case .packed:
      codes = try take(Suffix.packed)
      (outputs, inputs) = try storedShape(try take(Suffix.shape))
      hasGaps = try checkPacked(codes, outputs: outputs, inputs: inputs)
    case .int8:
      codes = try take(Suffix.weight)
      guard codes.dtype == .int8 else {
        throw .wrongType(component: Suffix.weight, expected: "I8", actual: codes.dtype)
      }
      guard codes.shape.count == 2 else {
        throw .unsupportedShape(shape: codes.shape, dtype: codes.dtype)
      }
      (outputs, inputs) = (codes.shape[0], codes.shape[1])
    }
    if case .group(let size) = granularity, !allowsShortLastGroup, inputs % size != 0 {
      throw .groupDoesNotDivide(inputs: inputs, groupSize: size)
    }

    let scales = try take(Suffix.scale)
    guard scales.dtype == scaleType else {
      throw .wrongType(
        component: Suffix.scale, expected: scaleType.rawValue, actual: scales.dtype)
    }
    let scaleShape = scaleShape(outputs: outputs, inputs: inputs)
    try check(scales, Suffix.scale, shape: scaleShape)

    var zeroPoints: Tensor?
    if !isSymmetric {
      let stored = try take(Suffix.zeroPoint)
      let expected = componentShapes(outputs: outputs, inputs: inputs)
        .first { $0.suffix == Suffix.zeroPoint }
      if let expected {
        guard stored.dtype == expected.dtype else {
          throw .wrongType(
            component: Suffix.zeroPoint, expected: expected.dtype.rawValue, actual: stored.dtype)
        }
        try check(stored, Suffix.zeroPoint, shape: expected.shape)
      }
      zeroPoints = stored
    }
    let columnGroups = try rest.removeValue(forKey: Suffix.groupIndex).flatMap {
      (index: Tensor) throws(CodecError) -> ColumnGroups? in
      try storedGroups(index, inputs: inputs)
    }
    if let stray = rest.keys.sorted().first { throw .unexpected(component: stray) }
    let weight = GroupQuantizedWeight(
      codec: self, outputs: outputs, inputs: inputs, codes: codes, scales: scales,
      zeroPoints: zeroPoints, hasGaps: hasGaps
    ).sorted(by: columnGroups)
    if let bad = weight.grids.scales.firstIndex(where: { !$0.isFinite }) {
      throw .wrongValue(component: Suffix.scale, reason: "scale \(bad) is NaN or infinite")
    }
    return weight
  }

  private func storedGroups(_ tensor: Tensor, inputs: Int) throws(CodecError) -> ColumnGroups? {
    guard tensor.dtype == .int32 else {
      throw .wrongType(component: Suffix.groupIndex, expected: "I32", actual: tensor.dtype)
    }
    try check(tensor, Suffix.groupIndex, shape: [inputs])
    return try ColumnGroups(
      index: tensor.int32s, groupSize: groupSize(inputs: inputs), component: Suffix.groupIndex)
  }

  /// `weight_shape`: two positive 64-bit numbers, stored as `[2]` (some writers: `[2, 1]`).
  private func storedShape(_ tensor: Tensor) throws(CodecError) -> (outputs: Int, inputs: Int) {
    guard tensor.dtype == .int64 || tensor.dtype == .int32 else {
      throw .wrongType(component: Suffix.shape, expected: "I64", actual: tensor.dtype)
    }
    guard tensor.count == 2 else {
      throw .wrongShape(component: Suffix.shape, expected: [2], actual: tensor.shape)
    }
    let sizes = (0..<2).map { index in
      tensor.dtype == .int64
        ? Int(tensor.bytes.loadUnaligned(fromByteOffset: index * 8, as: Int64.self))
        : Int(tensor.bytes.loadUnaligned(fromByteOffset: index * 4, as: Int32.self))
    }
    // A bound well above any real layer keeps products of sizes from overflowing.
    guard sizes.allSatisfy({ $0 >= 0 && $0 <= 1 << 30 }) else {
      throw .wrongValue(component: Suffix.shape, reason: "it says \(sizes)")
    }
    return (sizes[0], sizes[1])
  }

  /// Whether the words follow the older layout, floor(32 / bits) codes a word. The number of words
  /// tells, except in short rows where both layouts have equally many: there the bits tell, since
  /// the older layout leaves the top of each word empty and the present one the end of each row.
  /// - Throws: `.wrongValue` when not even they do.
  private func checkPacked(_ codes: Tensor, outputs: Int, inputs: Int) throws(CodecError) -> Bool {
    guard codes.dtype == .int32 else {
      throw .wrongType(component: Suffix.packed, expected: "I32", actual: codes.dtype)
    }
    let dense = (inputs * bits + 31) / 32
    let perWord = 32 / bits
    let gapped = (inputs + perWord - 1) / perWord
    guard codes.shape.count == 2, codes.shape[0] == outputs,
      codes.shape[1] == dense || codes.shape[1] == gapped
    else {
      throw .wrongShape(
        component: Suffix.packed, expected: [outputs, dense], actual: codes.shape)
    }
    guard dense == gapped else { return codes.shape[1] == gapped }
    guard 32 % bits != 0, dense > 1 else { return false }
    var hasContent = false
    for row in 0..<outputs {
      for word in 0..<dense {
        let value = codes.bytes.loadUnaligned(
          fromByteOffset: (row * dense + word) * 4, as: UInt32.self)
        if value >> UInt32(perWord * bits) != 0 { return false }
        let used = word == dense - 1 ? inputs * bits - word * 32 : 32
        if used < 32, value >> UInt32(used) != 0 { return true }
        hasContent = hasContent || value != 0
      }
    }
    guard hasContent else { return false }
    throw .wrongValue(
      component: Suffix.packed,
      reason: "rows of \(inputs) \(bits)-bit codes have as many words with gaps as without, and "
        + "no bit tells which was meant")
  }

  private func check(_ tensor: Tensor, _ name: String, shape: [Int]) throws(CodecError) {
    guard tensor.shape == shape else {
      throw .wrongShape(component: name, expected: shape, actual: tensor.shape)
    }
  }
}
