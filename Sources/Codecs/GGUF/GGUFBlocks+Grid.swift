import Tensors

/// Affine grids in GGUF blocks. A block has 32 neighbouring columns; a longer group repeats its scale
/// in each of its blocks. Codes of fewer bits than a block's are carried in the wider block.
///
///     symmetric    2, 3, 4 bits → Q4_0     5 → Q5_0     6, 8 → Q8_0
///     asymmetric   2, 3, 4 bits → Q4_1     5 → Q5_1     6, and 8 where code - zero fits → Q8_0
///
/// A symmetric 2-bit matrix whose codes are -1, 0 and 1 with one scale for each 256 columns is TQ2_0.
extension GGUFBlocks {
  /// The type that holds every code of a matrix.
  /// - Parameter codes: opened only where the grid alone does not tell.
  /// - Throws: `CodecError.notRepresentable`, with the reason.
  package static func type(holding grid: OpenGrid, codes: () -> [UInt8])
    throws(CodecError) -> (type: GGUFType, rounding: String?)
  {
    guard grid.groupIndex == nil else {
      throw .notRepresentable("GGUF has no order of columns, which its groups follow")
    }
    guard grid.groupLength % 32 == 0, grid.inputs % grid.groupLength == 0 else {
      throw .notRepresentable(
        "groups of \(grid.groupLength) in \(grid.inputs) columns are no whole blocks of 32")
    }
    let (scales, isExact) = try grid.scales(as: .float16)
    let rounding = isExact ? nil : "scales rounded to F16"
    if grid.isSymmetric {
      if grid.bits == 2, grid.groupLength % 256 == 0, !codes().contains(0) {
        return (.tq2_0, rounding)
      }
      return (grid.bits <= 4 ? .q4_0 : grid.bits == 5 ? .q5_0 : .q8_0, rounding)
    }
    if grid.bits <= 5 {
      let minima = try grid.minima(scales)
      return (
        grid.bits <= 4 ? .q4_1 : .q5_1,
        rounding ?? (minima.isExact ? nil : "minima rounded to F16")
      )
    }
    guard grid.bits < 8 || fitsBytes(grid, codes()) else {
      throw .notRepresentable("its codes less zero points do not fit the 8 bits of Q8_0")
    }
    return (.q8_0, rounding)
  }

  private static func fitsBytes(_ grid: OpenGrid, _ codes: [UInt8]) -> Bool {
    var fits = true
    for row in 0..<grid.outputs {
      for column in 0..<grid.inputs {
        let zero = grid.zeros[row * grid.groups + column / grid.groupLength]
        let steps = Int(codes[row * grid.inputs + column]) - Int(zero)
        fits = fits && steps >= -128 && steps <= 127
      }
    }
    return fits
  }

  /// The same codes in blocks of a type that `type(holding:codes:)` gave.
  package static func blocks(_ grid: OpenGrid, codes: [UInt8], as type: GGUFType)
    throws(CodecError) -> BlockQuantizedWeight
  {
    let length = type.blockLength
    let (scales, _) = try grid.scales(as: .float16)
    let hasMinimum = type == .q4_1 || type == .q5_1
    let minima = hasMinimum ? try grid.minima(scales).tensor : scales
    let rowBytes = type.rowBytes(inputs: grid.inputs)
    let perRow = grid.inputs / length
    let blocks = Tensor(dtype: .uint8, shape: [grid.outputs, rowBytes]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(grid.outputs, of: max(1, (1 << 18) / max(grid.inputs, 1))) { rows in
        var steps = [Int](repeating: 0, count: length)
        for row in rows {
          for block in 0..<perRow {
            let group = row * grid.groups + block * length / grid.groupLength
            // Types with a minimum keep codes as they are; the others count from zero.
            let zero = hasMinimum ? 0 : Int(grid.zeros[group])
            for index in 0..<length {
              steps[index] = Int(codes[row * grid.inputs + block * length + index]) - zero
            }
            let half = { (numbers: Tensor) in
              numbers.bytes.loadUnaligned(fromByteOffset: group * 2, as: UInt16.self)
            }
            write(
              steps, scale: half(scales), minimum: half(minima), type,
              to: target.value + row * rowBytes + block * type.blockBytes)
          }
        }
      }
    }
    return BlockQuantizedWeight(
      type: type, outputs: grid.outputs, inputs: grid.inputs, blocks: blocks)
  }

  /// One block. Scales are float16 as they are stored, their bytes already in order.
  private static func write(
    _ steps: [Int], scale: UInt16, minimum: UInt16, _ type: GGUFType,
    to target: UnsafeMutableRawPointer
  ) {
    let bytes = target.assumingMemoryBound(to: UInt8.self)
    if type == .tq2_0 {
      for index in 0..<64 {
        let first = index / 32 * 128 + index % 32
        bytes[index] = (0..<4).reduce(0) { $0 | UInt8(steps[first + 32 * $1] + 1) << (2 * $1) }
      }
      target.storeBytes(of: scale, toByteOffset: 64, as: UInt16.self)
      return
    }
    target.storeBytes(of: scale, toByteOffset: 0, as: UInt16.self)
    if type == .q8_0 {
      for (index, step) in steps.enumerated() {
        bytes[2 + index] = UInt8(bitPattern: Int8(step))
      }
      return
    }
    var offset = 2
    if type == .q4_1 || type == .q5_1 {
      target.storeBytes(of: minimum, toByteOffset: 2, as: UInt16.self)
      offset = 4
    }
    let bias = type == .q4_0 ? 8 : type == .q5_0 ? 16 : 0
    let codes = steps.map { UInt32($0 + bias) }
    if type == .q5_0 || type == .q5_1 {
      let high = codes.indices.reduce(UInt32(0)) { $0 | (codes[$1] >> 4) << UInt32($1) }
      target.storeBytes(of: high.littleEndian, toByteOffset: offset, as: UInt32.self)
      offset += 4
    }
    for index in 0..<16 {
      bytes[offset + index] = UInt8(codes[index] & 15 | (codes[index + 16] & 15) << 4)
    }
  }
}

extension OpenGrid {
  /// `-zero · scale` in float16.
  fileprivate func minima(_ scales: Tensor) throws(CodecError) -> (tensor: Tensor, isExact: Bool) {
    let widened = scales.widened()
    let products = Tensor(shape: scales.shape) { target in
      for index in target.indices { target[index] = -Float(zeros[index]) * widened.floats[index] }
    }
    return try Self.rounded(products, to: .float16, what: "minimum")
  }
}

// MARK: Reading

extension BlockQuantizedWeight: AffineWeight {
  /// Bits of a type whose blocks are an integer grid.
  private var affineBits: Int? {
    switch type {
    case .q4_0, .q4_1: 4
    case .q5_0, .q5_1: 5
    case .q8_0: 8
    default: nil
    }
  }

  package func openGrid() throws(CodecError) -> OpenGrid {
    guard let bits = affineBits else {
      throw .notRepresentable(
        "\(type.name) is no grid of integers with one scale for each group")
    }
    let count = blocks.byteCount / type.blockBytes
    func half(_ offset: Int) -> Tensor {
      Tensor(dtype: .float16, shape: [outputs, inputs / 32]) { target in
        for block in 0..<count {
          target.storeBytes(
            of: blocks.rawPointer.loadUnaligned(
              fromByteOffset: block * type.blockBytes + offset, as: UInt16.self),
            toByteOffset: block * 2, as: UInt16.self)
        }
      }
    }
    let scales = half(0)
    guard type == .q4_1 || type == .q5_1 else {
      return OpenGrid(
        bits: bits, outputs: outputs, inputs: inputs, groupSize: 32, scales: scales,
        zeros: [UInt8](repeating: UInt8(1 << (bits - 1)), count: count))
    }
    // The codes are not looked at, so none need be there.
    return try BiasedGroupWeight(
      bits: bits, groupSize: 32, outputs: outputs, inputs: inputs,
      codes: Tensor(dtype: .int32, shape: [0, 0]) { _ in }, scales: scales, biases: half(2)
    ).openGrid()
  }

  package func openCodes() -> [UInt8] {
    guard affineBits != nil else { return [] }
    let (count, blockBytes) = (blocks.byteCount / type.blockBytes, type.blockBytes)
    return [UInt8](unsafeUninitializedCapacity: count * 32) { target, initialized in
      initialized = count * 32
      let source = blocks.bytes
      for block in 0..<count {
        var at = block * blockBytes + 2
        let first = block * 32
        if type == .q8_0 {
          for index in 0..<32 { target[first + index] = source[at + index] &+ 128 }
          continue
        }
        if type == .q4_1 || type == .q5_1 { at += 2 }
        var high: UInt32 = 0
        if type == .q5_0 || type == .q5_1 {
          high = UInt32(littleEndian: source.loadUnaligned(fromByteOffset: at, as: UInt32.self))
          at += 4
        }
        for index in 0..<16 {
          let byte = source[at + index]
          target[first + index] = byte & 15 | UInt8(high >> UInt32(index) & 1) << 4
          target[first + index + 16] = byte >> 4 | UInt8(high >> UInt32(index + 16) & 1) << 4
        }
      }
    }
  }
}
