/// Copies a strided view into row-major order.
enum Strided {
  /// - Parameters:
  ///   - source: the first element.
  ///   - strides: elements from one index to the next, per dimension of `shape`.
  ///   - target: room for the whole tensor.
  static func gather(
    _ source: UnsafeRawPointer, shape: [Int], strides: [Int], elementBytes: Int,
    into target: UnsafeMutableRawBufferPointer
  ) {
    switch elementBytes {
    case 1: gather(source, shape, strides, target, as: UInt8.self)
    case 2: gather(source, shape, strides, target, as: UInt16.self)
    case 4: gather(source, shape, strides, target, as: UInt32.self)
    default: gather(source, shape, strides, target, as: UInt64.self)
    }
  }

  private static func gather<Element: FixedWidthInteger>(
    _ source: UnsafeRawPointer, _ shape: [Int], _ strides: [Int],
    _ target: UnsafeMutableRawBufferPointer, as: Element.Type
  ) {
    let width = MemoryLayout<Element>.size
    guard let columns = shape.last, let columnStride = strides.last, !target.isEmpty else {
      // A single number.
      target.copyMemory(from: UnsafeRawBufferPointer(start: source, count: target.count))
      return
    }
    let rows = target.count / width / columns
    // Sixteen rows at a time: of a transposed matrix they are neighbours in the file, so that each
    // cache line brought in is used up.
    var index = [Int](repeating: 0, count: shape.count - 1)
    var first = 0
    while first < rows {
      let block = min(16, rows - first)
      var starts: [Int] = []
      for _ in 0..<block {
        starts.append(zip(index, strides).reduce(0) { $0 + $1.0 * $1.1 })
        for dimension in index.indices.reversed() {
          index[dimension] += 1
          if index[dimension] < shape[dimension] { break }
          index[dimension] = 0
        }
      }
      for column in 0..<columns {
        for row in 0..<block {
          let element = source.loadUnaligned(
            fromByteOffset: (starts[row] + column * columnStride) * width, as: Element.self)
          target.storeBytes(
            of: element, toByteOffset: ((first + row) * columns + column) * width, as: Element.self)
        }
      }
      first += block
    }
  }
}
