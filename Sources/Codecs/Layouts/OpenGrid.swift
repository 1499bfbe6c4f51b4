package import Tensors

/// The grids of an affine-quantized matrix laid open, so that any layout can be made of them and of
/// the unsigned codes `[outputs, inputs]`:
///
///     W[o, i] = (code[o, i] - zero[o, g]) * scale[o, g]        g the group of column i
///
/// A stored layout is a pair of functions, components ⇄ (grid, codes), and nothing else.
package struct OpenGrid: Sendable {
  package var bits: Int
  package var outputs: Int
  package var inputs: Int
  /// Columns that share a grid; nil where a whole row does.
  package var groupSize: Int?
  /// `[outputs, groups]`, float32, bfloat16 or float16.
  package var scales: Tensor
  /// `[outputs, groups]`, 0 to `2^bits - 1`.
  package var zeros: [UInt8]
  /// The group of each column where neighbours do not share one.
  package var groupIndex: [Int32]?

  package init(
    bits: Int, outputs: Int, inputs: Int, groupSize: Int?, scales: Tensor, zeros: [UInt8],
    groupIndex: [Int32]? = nil
  ) {
    self.bits = bits
    self.outputs = outputs
    self.inputs = inputs
    self.groupSize = groupSize
    self.scales = scales
    self.zeros = zeros
    self.groupIndex = groupIndex
    precondition(scales.count == outputs * groups && zeros.count == scales.count)
  }

  package var groupLength: Int { min(groupSize ?? inputs, max(inputs, 1)) }
  package var groups: Int { max(1, (inputs + max(groupLength, 1) - 1) / max(groupLength, 1)) }
  package var highestCode: Int { (1 << bits) - 1 }
  /// The zero point of a symmetric grid.
  package var middle: UInt8 { UInt8(1 << (bits - 1)) }
  package var isSymmetric: Bool { zeros.allSatisfy { $0 == middle } }

  /// Zero points as compressed-tensors packs them, `[outputs·bits/32, groups]`, each column a stream.
  var packedZeros: Tensor {
    let groups = groups
    return Tensor(dtype: .int32, shape: [BitStream.words(outputs, bits: bits), groups]) { target in
      guard let base = target.bindMemory(to: UInt32.self).baseAddress else { return }
      zeros.withUnsafeBufferPointer { zeros in
        guard let source = zeros.baseAddress else { return }
        for group in 0..<groups {
          BitStream.pack(
            source + group, stride: groups, count: outputs, bits: bits, into: base + group,
            wordStride: groups)
        }
      }
    }
  }

  /// The same grid over shorter groups: each scale and zero point is repeated.
  /// - Parameter size: divides the present length and the columns.
  package func repeated(groupSize size: Int) -> OpenGrid {
    precondition(groupIndex == nil && groupLength % size == 0 && inputs % size == 0)
    guard size != groupLength else { return self }
    let times = groupLength / size
    var grid = self
    grid.groupSize = size
    let count = zeros.count
    grid.zeros = [UInt8](unsafeUninitializedCapacity: count * times) { target, initialized in
      for index in 0..<count * times { target[index] = zeros[index / times] }
      initialized = count * times
    }
    let width = scales.dtype.byteCount
    let source = scales
    grid.scales = Tensor(dtype: scales.dtype, shape: [outputs, groups * times]) { target in
      for index in 0..<count {
        for copy in 0..<times {
          UnsafeMutableRawBufferPointer(rebasing: target[((index * times + copy) * width)...])
            .copyMemory(
              from: UnsafeRawBufferPointer(
                start: source.rawPointer + index * width, count: width))
        }
      }
    }
    return grid
  }

  /// The scales in another type.
  ///
  /// - Returns: `isExact` false where numbers were rounded; never by more than half a unit of
  ///   the type's last place.
  /// - Throws: `CodecError.notRepresentable` for scales beyond the type's range.
  package func scales(as type: DType) throws(CodecError) -> (tensor: Tensor, isExact: Bool) {
    guard scales.dtype != type else { return (scales, true) }
    return try Self.rounded(scales.widened(), to: type, what: "scale")
  }

  /// float32 numbers rounded to a stored type.
  static func rounded(_ numbers: Tensor, to type: DType, what: String)
    throws(CodecError) -> (tensor: Tensor, isExact: Bool)
  {
    let result = numbers.converted(to: type)
    let back = result.widened()
    var isExact = true
    for index in 0..<numbers.count where back.floats[index] != numbers.floats[index] {
      isExact = false
      let (was, is_) = (numbers.floats[index], back.floats[index])
      guard is_.isFinite, abs(is_ - was) <= abs(was) * 0x1p-8 else {
        throw .notRepresentable(
          "the \(what) \(was) does not fit \(type.rawValue), in which this format stores it")
      }
    }
    return (result, isExact)
  }
}

/// A quantized matrix whose values lie on affine grids, whatever file it came from.
package protocol AffineWeight: StoredWeight {
  /// - Throws: `CodecError.notRepresentable` where the stored numbers are no integers times a scale.
  func openGrid() throws(CodecError) -> OpenGrid
  /// Unsigned codes, `[outputs, inputs]` in the order of columns.
  func openCodes() -> [UInt8]
}
