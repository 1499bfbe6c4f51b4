/// What a linear layer multiplies by: a matrix `W` of shape `[outputs, inputs]`, however it is kept.
///
/// Dense, group-quantized, transposed and every later form answer the same few questions, so a
/// layer never knows which it holds and compression replaces one form by another in place.
public protocol Weight: Sendable {
  /// Rows of `W`.
  var outputs: Int { get }
  /// Columns of `W`.
  var inputs: Int { get }
  /// Bytes this form occupies when stored, scales and zero points included.
  var storedBytes: Int { get }

  /// `x · Wᵀ`, with a backward rule where x or a trainable part of W has a place in a computation.
  /// - Parameter x: float32 `[tokens, inputs]`.
  /// - Returns: float32 `[tokens, outputs]`.
  func multiply(_ x: Tensor) -> Tensor

  /// `dy · W`: how a gradient passes on from outputs to inputs.
  /// - Parameter dy: float32 `[tokens, outputs]`.
  /// - Returns: float32 `[tokens, inputs]`.
  func inputGradient(_ dy: Tensor) -> Tensor

  /// Rows of `W` by index, as an embedding looks them up: float32 `[ids.count, inputs]`.
  func rows(at ids: [Int]) -> Tensor

  /// Writes rows `range` of `W` as float32, `range.count * inputs` numbers, row after row.
  func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>)

  /// The same matrix without a place in a computation, so that products with it record nothing for it.
  var detached: any Weight { get }

  /// The bytes behind this weight are no longer needed soon: file pages may go.
  func giveBack()
}

extension Weight {
  /// Stored bits of the whole matrix.
  public var storedBits: Int { storedBytes * 8 }
  public var parameterCount: Int { outputs * inputs }
  /// Stored bits over the number of weights.
  public var bitsPerWeight: Double { Double(storedBits) / Double(max(parameterCount, 1)) }

  public func rows(at ids: [Int]) -> Tensor {
    Tensor(shape: [ids.count, inputs]) { target in
      guard let base = target.baseAddress, inputs > 0 else { return }
      for (position, id) in ids.enumerated() {
        precondition(id >= 0 && id < outputs, "row \(id) of \(outputs)")
        dequantizeRows(id..<id + 1, into: base + position * inputs)
      }
    }
  }

  /// The whole matrix as float32 `[outputs, inputs]`.
  public func dequantized() -> Tensor {
    Tensor(shape: [outputs, inputs]) { target in
      guard let base = target.baseAddress, outputs > 0, inputs > 0 else { return }
      dequantizeRows(0..<outputs, into: base)
    }
  }

  public var detached: any Weight { self }

  public func giveBack() {}

  /// Some rows of W at a time are widened, so that the expanded matrix never exists.
  public func inputGradient(_ dy: Tensor) -> Tensor {
    let (tokens, inputs, outputs) = (dy.rows, inputs, outputs)
    return Tensor(shape: [tokens, inputs]) { target in
      guard let base = target.baseAddress else { return }
      if outputs == 0 { base.initialize(repeating: 0, count: tokens * inputs) }
      let rows = max(1, (4 << 20) / max(inputs, 1))
      for first in stride(from: 0, to: outputs, by: rows) {
        let block = first..<min(first + rows, outputs)
        let matrix = widenedRows(block)
        TiledProduct.run(
          tokens, inputs, block.count, MatrixOperand(dy, offset: first, stride: outputs),
          matrix.operand(), into: base, stride: inputs, adding: first > 0)
      }
    }
  }

  /// Rows as float32 `[range.count, inputs]`, decoded on all threads.
  private func widenedRows(_ range: Range<Int>) -> Tensor {
    Tensor(shape: [range.count, inputs]) { target in
      guard let base = target.baseAddress, inputs > 0 else { return }
      let target = Unshared(base)
      let inputs = inputs
      Parallel.ranges(range.count, of: max(1, Tensor.pieceSize / inputs)) { part in
        dequantizeRows(
          (range.lowerBound + part.lowerBound)..<(range.lowerBound + part.upperBound),
          into: target.value + part.lowerBound * inputs)
      }
    }
  }

  /// `result = x · Wᵀ` of a matrix without trainable parts, with its backward rule.
  package func recordingInput(_ x: Tensor, _ result: Tensor) -> Tensor {
    result.recorded(from: x) { [place = x.place] dy in place.receive(inputGradient(dy)) }
  }
}

/// A matrix kept as it was stored: `[outputs, inputs]` of any floating-point type.
public struct DenseWeight: Weight {
  public let tensor: Tensor

  /// - Parameter tensor: `[outputs, inputs]`.
  public init(_ tensor: Tensor) {
    precondition(tensor.shape.count == 2 && tensor.dtype.isFloatingPoint)
    self.tensor = tensor
  }

  public var outputs: Int { tensor.shape[0] }
  public var inputs: Int { tensor.shape[1] }
  public var storedBytes: Int { tensor.byteCount }

  public func multiply(_ x: Tensor) -> Tensor { x.multiplied(byTransposeOf: tensor) }

  public var detached: any Weight { DenseWeight(tensor.detached) }

  public func rows(at ids: [Int]) -> Tensor { tensor.rows(at: ids) }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    let count = range.count * inputs
    guard count > 0 else { return }
    let widened = tensor.rows(range).widened()
    target.update(from: widened.floats, count: count)
  }

  public func giveBack() { tensor.giveBack() }
}

/// A matrix stored the other way round, `[inputs, outputs]`, as GPT-2's `Conv1D` layers are.
public struct TransposedWeight: Weight {
  /// `[inputs, outputs]`.
  public let tensor: Tensor

  /// - Parameter tensor: `[inputs, outputs]`.
  public init(_ tensor: Tensor) {
    precondition(tensor.shape.count == 2 && tensor.dtype.isFloatingPoint)
    self.tensor = tensor
  }

  public var outputs: Int { tensor.shape[1] }
  public var inputs: Int { tensor.shape[0] }
  public var storedBytes: Int { tensor.byteCount }

  public func multiply(_ x: Tensor) -> Tensor { x.multiplied(by: tensor) }

  public var detached: any Weight { TransposedWeight(tensor.detached) }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    guard !range.isEmpty else { return }
    for input in 0..<inputs {
      let row = tensor.rows(input..<input + 1).widened()
      let values = row.floats
      for output in range { target[(output - range.lowerBound) * inputs + input] = values[output] }
    }
  }

  public func giveBack() { tensor.giveBack() }
}
