import Tensors

/// What an optimizer keeps for one parameter.
struct ParameterState {
  let parameter: Parameter
  let weights: StoredNumbers
  let moments: [StoredNumbers]
  let rates: Rates
  /// Steps this parameter has taken, as a tensor so that it is saved like the rest.
  private let stepCount: Tensor
  /// What is saved, under full names.
  let named: [(name: String, tensor: Tensor)]

  init(
    _ parameter: Parameter, optimizer: String, slots: [StateSlot], rates: Rates,
    _ options: OptimizerOptions
  ) {
    self.parameter = parameter
    self.rates = rates
    weights = StoredNumbers(parameter, options)
    moments = slots.map { StoredNumbers($0, shape: parameter.shape, options) }
    stepCount = Tensor(dtype: .int64, shape: [1]) { $0.storeBytes(of: 0, as: Int64.self) }
    var named = [("\(optimizer).step.\(parameter.name)", stepCount)]
    for (slot, numbers) in zip(slots, moments) {
      for (suffix, tensor) in numbers.tensors {
        named.append(("\(optimizer).\(slot.name)\(suffix).\(parameter.name)", tensor))
      }
    }
    for (_, tensor) in weights.tensors {
      named.append(("\(optimizer).master.\(parameter.name)", tensor))
    }
    self.named = named
  }

  var steps: Int { Int(stepCount.rawPointer.load(as: Int64.self)) }

  func countStep() {
    UnsafeMutableRawPointer(mutating: stepCount.rawPointer)
      .storeBytes(of: Int64(steps + 1), as: Int64.self)
  }

  /// Runs a kernel over the parameter and its moments.
  ///
  /// - Parameters:
  ///   - gradient: float32 numbers that go with the parameter's.
  ///   - key: of random rounding
  func update(gradient: UnsafePointer<Float>, key: UInt64, _ kernel: UpdateKernel) {
    let gradient = Unshared(gradient)
    inStrips(weights, moments.first, moments.count > 1 ? moments[1] : nil, key: key) {
      range, weights, first, second in
      guard let weights else { return }
      kernel(gradient.value + range.lowerBound, weights, first, second, range.count)
    }
  }

  /// Changes the weights alone.
  func updateWeights(
    key: UInt64, _ body: @Sendable (Range<Int>, UnsafeMutablePointer<Float>) -> Void
  ) {
    inStrips(weights, nil, nil, key: key) { range, weights, _, _ in
      if let weights { body(range, weights) }
    }
  }

  /// Changes the first moment alone.
  func updateMoment(_ body: @Sendable (Range<Int>, UnsafeMutablePointer<Float>) -> Void) {
    inStrips(nil, moments.first, nil, key: 0) { range, _, moment, _ in
      if let moment { body(range, moment) }
    }
  }

  /// Parallel pieces, and in them strips that fit the cache where numbers are not float32 as they lie.
  private func inStrips(
    _ weights: StoredNumbers?, _ first: StoredNumbers?, _ second: StoredNumbers?, key: UInt64,
    _ body:
      @Sendable (
        Range<Int>, _ weights: UnsafeMutablePointer<Float>?, _ first: UnsafeMutablePointer<Float>?,
        _ second: UnsafeMutablePointer<Float>?
      ) -> Void
  ) {
    let strip = StoredNumbers.stripLength
    let isDirect = [weights, first, second].allSatisfy { $0?.isDirect ?? true }
    let length = isDirect ? StoredNumbers.pieceSize : strip
    Parallel.ranges(parameter.count, of: StoredNumbers.pieceSize) { piece in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: isDirect ? 1 : 3 * strip) { scratch in
        guard let base = scratch.baseAddress else { return }
        for start in stride(from: piece.lowerBound, to: piece.upperBound, by: length) {
          let range = start..<min(start + length, piece.upperBound)
          let w = weights?.borrow(range, base)
          let m = first?.borrow(range, isDirect ? base : base + strip)
          let v = second?.borrow(range, isDirect ? base : base + 2 * strip)
          body(range, w, m, v)
          if let w { weights?.giveBack(range, w, key: key) }
          if let m { first?.giveBack(range, m, key: key) }
          if let v { second?.giveBack(range, v, key: key) }
        }
      }
    }
  }
}

/// Copies saved tensors into live ones, all or none.
///
/// - Parameters:
///   - prefix: of every name that is this owner's
func restore(
  _ live: [(name: String, tensor: Tensor)], from saved: [String: Tensor], prefix: String
) throws(TrainingError) {
  var names: Set<String> = []
  for (name, tensor) in live {
    guard let found = saved[name] else { throw .missingState(name) }
    guard found.dtype == tensor.dtype, found.shape == tensor.shape else {
      throw .stateMismatch(
        name, expected: "\(tensor.dtype.rawValue) \(tensor.shape)",
        found: "\(found.dtype.rawValue) \(found.shape)")
    }
    names.insert(name)
  }
  for name in saved.keys.sorted() where name.hasPrefix(prefix) && !names.contains(name) {
    throw .unexpectedState(name)
  }
  for (name, tensor) in live {
    guard let found = saved[name] else { continue }
    UnsafeMutableRawPointer(mutating: tensor.rawPointer)
      .copyMemory(from: found.rawPointer, byteCount: tensor.byteCount)
  }
}
