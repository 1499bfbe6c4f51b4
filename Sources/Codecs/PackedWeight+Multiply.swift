import CKernels
public import Tensors

extension PackedWeight {
  public func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    // On the way back rounding the activations counts as the identity (Bengio et al. 2013).
    return recordingInput(x, multiply(QuantizedActivations(x)))
  }

  /// `x · Wᵀ` for activations that are quantized already, as several matrices with the same input
  /// share them.
  package func multiply(_ x: QuantizedActivations) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    let outputs = outputs
    return Tensor(shape: [x.tokens, outputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      let groups = (outputs + Int(PARE_PACKED_ROWS) - 1) / Int(PARE_PACKED_ROWS)
      // One token reads each group once: claims long enough for streams of memory. Many tokens
      // compute long on each group.
      let size = x.tokens == 1 ? max(1, groups / (8 * Parallel.threads)) : 1
      Parallel.ranges(groups, of: size) { range in
        var layout = layout.value
        pare_packed_multiply(
          &layout, range.lowerBound, range.upperBound, x.blocks, x.tokens, target.value, outputs)
      }
    }
  }
}

/// Rows of activations rounded to 8 bits: 32 columns with a scale, or on a layer's own grids.
package struct QuantizedActivations: Sendable {
  package let tokens: Int
  package let columns: Int
  private let storage: Storage

  var blocks: UnsafePointer<pare_activations> {
    UnsafePointer(storage.base.assumingMemoryBound(to: pare_activations.self))
  }

  /// - Parameter x: float32 `[tokens, columns]`, columns a multiple of 32.
  package init(_ x: Tensor) {
    precondition(x.columns % 32 == 0, "\(x.columns) columns are not a multiple of 32")
    (tokens, columns) = (x.rows, x.columns)
    let perToken = columns / 32
    storage = Storage(byteCount: tokens * perToken * MemoryLayout<pare_activations>.stride)
    let source = Unshared(x.floats)
    let target = Unshared(storage.base.assumingMemoryBound(to: pare_activations.self))
    let columns = columns
    Parallel.ranges(tokens, of: Int(PARE_PACKED_TILE)) { tile in
      pare_quantize_activations(
        source.value + tile.lowerBound * columns, columns, tile.count,
        target.value + tile.lowerBound * perToken)
    }
  }

  /// - Parameters:
  ///   - x: float32 `[tokens, columns]`, columns a multiple of 32.
  ///   - scales: of each token.
  ///   - codes: bounds of the codes.
  init(_ x: Tensor, scales: [Float], codes: ClosedRange<Int>) {
    precondition(x.columns % 32 == 0, "\(x.columns) columns are not a multiple of 32")
    precondition(scales.count == x.rows && codes.lowerBound >= -128 && codes.upperBound <= 127)
    (tokens, columns) = (x.rows, x.columns)
    let perToken = columns / 32
    storage = Storage(byteCount: tokens * perToken * MemoryLayout<pare_activations>.stride)
    let source = Unshared(x.floats)
    let target = Unshared(storage.base.assumingMemoryBound(to: pare_activations.self))
    let columns = columns
    let bounds = (Int32(codes.lowerBound), Int32(codes.upperBound))
    Parallel.ranges(tokens, of: Int(PARE_PACKED_TILE)) { tile in
      scales.withUnsafeBufferPointer { scales in
        guard let scales = scales.baseAddress else { return }
        pare_quantize_activations_on_grid(
          source.value + tile.lowerBound * columns, columns, tile.count, scales + tile.lowerBound,
          bounds.0, bounds.1, target.value + tile.lowerBound * perToken)
      }
    }
  }
}
