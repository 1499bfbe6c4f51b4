extension Tape {
  /// A sum of scalars of which each is computed, differentiated and forgotten before the next, so
  /// that what a scalar needs on the way (scores of one head of one text) exists once.
  ///
  /// The derivatives wait, one tensor per input, until the way back asks for them.
  ///
  /// - Parameters:
  ///   - inputs: what the scalars are computed from; those without a place in a computation stay
  ///     so.
  ///   - body: `(piece, inputs)` to a tensor of one element, or nil for nothing to add.
  /// - Returns: a tensor of one element, recorded.
  package static func sum<E: Error>(
    _ inputs: [Tensor], over pieces: Int, _ body: (Int, [Tensor]) throws(E) -> Tensor?
  ) throws(E) -> Tensor {
    let leaves = inputs.map { $0.node == nil ? $0 : $0.asLeaf }
    let one = Tensor([1], shape: [1])
    var total = 0.0
    for piece in 0..<pieces {
      guard let scalar = try body(piece, leaves) else { continue }
      precondition(scalar.count == 1)
      total += Double(scalar.floats[0])
      backward([(scalar, one)])
    }
    let sum = Tensor([Float(total)], shape: [1])
    let derivatives = leaves.map(\.gradient)
    return sum.recorded(from: inputs) { [places = inputs.map(\.place)] gradient in
      for (place, derivative) in zip(places, derivatives) {
        guard let derivative else { continue }
        place.receive(derivative.scaled(by: gradient.floats[0]))
      }
    }
  }
}
