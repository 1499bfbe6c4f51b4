package import Tensors

extension GroupQuantizedWeight {
  /// Rows whose columns are in the order of groups, put back into their own order in place.
  static func restore(_ order: [Int], _ rows: Int, _ target: UnsafeMutablePointer<Float>) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: max(order.count, 1)) { scratch in
      guard let sorted = scratch.baseAddress else { return }
      for row in 0..<rows {
        let values = target + row * order.count
        sorted.update(from: values, count: order.count)
        for (position, column) in order.enumerated() { values[column] = sorted[position] }
      }
    }
  }

  /// Codes as a file holds them, whatever order they are kept in.
  var codesInColumnOrder: Tensor {
    guard columnGroups != nil else { return codes }
    return Self.stored(openCodes(), codec, outputs, inputs)
  }

  /// The same matrix, its codes brought into the order of groups.
  func sorted(by groups: ColumnGroups?) -> GroupQuantizedWeight {
    guard let groups else { return self }
    let codes = openCodes()
    let inputs = inputs
    let sorted = [UInt8](unsafeUninitializedCapacity: codes.count) { target, initialized in
      for row in 0..<outputs {
        for (position, column) in groups.order.enumerated() {
          target[row * inputs + position] = codes[row * inputs + column]
        }
      }
      initialized = codes.count
    }
    return GroupQuantizedWeight(
      codec: codec, outputs: outputs, inputs: inputs,
      codes: Self.stored(sorted, codec, outputs, inputs), scales: scales, zeroPoints: zeroPoints,
      columnGroups: groups)
  }

  /// Unsigned codes in the codec's layout.
  static func stored(_ codes: [UInt8], _ codec: AffineGroups, _ outputs: Int, _ inputs: Int)
    -> Tensor
  {
    switch codec.layout {
    case .int8:
      let half = UInt8(1 << (codec.bits - 1))
      return Tensor(dtype: .int8, shape: [outputs, inputs]) { target in
        for (index, code) in codes.enumerated() { target[index] = code &- half }
      }
    case .packed:
      let words = BitStream.words(inputs, bits: codec.bits)
      return Tensor(dtype: .int32, shape: [outputs, words]) { target in
        guard let base = target.bindMemory(to: UInt32.self).baseAddress else { return }
        let target = Unshared(base)
        codes.withUnsafeBufferPointer { codes in
          guard let first = codes.baseAddress else { return }
          let source = Unshared(first)
          Parallel.ranges(outputs, of: max(1, (1 << 18) / max(inputs, 1))) { rows in
            for row in rows {
              BitStream.pack(
                source.value + row * inputs, count: inputs, bits: codec.bits,
                into: target.value + row * words)
            }
          }
        }
      }
    }
  }
}

extension Tensor {
  /// Columns of a float32 matrix in another order.
  func columns(in order: [Int]) -> Tensor {
    let width = columns
    return Tensor(shape: shape) { target in
      for row in 0..<rows {
        for (position, column) in order.enumerated() {
          target[row * width + position] = floats[row * width + column]
        }
      }
    }
  }

  /// Numbers of an int32 tensor, which need not be aligned.
  var int32s: [Int32] {
    (0..<count).map {
      Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: Int32.self))
    }
  }

  package init(_ values: [Int32]) {
    self.init(dtype: .int32, shape: [values.count]) { target in
      for (index, value) in values.enumerated() {
        target.storeBytes(of: value.littleEndian, toByteOffset: index * 4, as: Int32.self)
      }
    }
  }
}
