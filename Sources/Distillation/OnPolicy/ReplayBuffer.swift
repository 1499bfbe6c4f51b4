package import Tensors
package import Training

/// The newest texts that a student wrote, kept to be learned from again.
package struct ReplayBuffer: Sendable, Equatable {
  package let capacity: Int
  /// Oldest first.
  package private(set) var texts: [TrainingExample] = []

  package init(capacity: Int) { self.capacity = capacity }

  /// The oldest make room.
  package mutating func add(_ new: [TrainingExample]) {
    texts += new
    texts.removeFirst(max(texts.count - capacity, 0))
  }

  /// Texts drawn without replacement, all there are if those are fewer.
  package func sample(_ count: Int, _ random: inout Xoshiro256) -> [TrainingExample] {
    var indices = Array(texts.indices)
    let count = min(count, indices.count)
    for place in 0..<count {
      indices.swapAt(place, place + Int(random.next(below: UInt64(indices.count - place))))
    }
    return indices[..<count].map { texts[$0] }
  }

  // MARK: - In checkpoints

  /// `NAME.tokens`, all texts' ids; `NAME.lengths`; `NAME.prompts`, how many of a text's tokens do
  /// not count. Nothing while the buffer is empty.
  package func state(_ name: String) -> [(name: String, tensor: Tensor)] {
    if texts.isEmpty { return [] }
    return [
      ("\(name).tokens", Self.tensor(texts.flatMap(\.tokens))),
      ("\(name).lengths", Self.tensor(texts.map(\.tokens.count))),
      ("\(name).prompts", Self.tensor(texts.map(\.prompt.count))),
    ]
  }

  package mutating func restore(_ name: String, from state: [String: Tensor])
    throws(DistillationError)
  {
    guard state["\(name).tokens"] != nil else {
      texts = []
      return
    }
    let tokens = try Self.numbers("\(name).tokens", state)
    let lengths = try Self.numbers("\(name).lengths", state)
    let prompts = try Self.numbers("\(name).prompts", state)
    guard lengths.count == prompts.count, lengths.count <= capacity,
      zip(lengths, prompts).allSatisfy({ $0 >= $1 && $1 >= 0 && $0 <= tokens.count }),
      lengths.reduce(0, +) == tokens.count
    else { throw .badState(name, problem: "its texts do not fit together") }
    var first = 0
    texts = zip(lengths, prompts).map { length, prompt in
      defer { first += length }
      return TrainingExample(
        tokens: Array(tokens[first..<first + length]), counts: (0..<length).map { $0 >= prompt })
    }
  }

  static func tensor(_ numbers: [Int]) -> Tensor {
    Tensor(dtype: .int64, shape: [numbers.count]) { bytes in
      for (index, number) in numbers.enumerated() {
        bytes.storeBytes(of: Int64(number), toByteOffset: 8 * index, as: Int64.self)
      }
    }
  }

  static func numbers(_ name: String, _ state: [String: Tensor]) throws(DistillationError) -> [Int]
  {
    guard let tensor = state[name] else { throw .badState(name, problem: "it is missing") }
    guard tensor.dtype == .int64, tensor.shape.count == 1 else {
      throw .badState(name, problem: "it is not a list of whole numbers")
    }
    return (0..<tensor.count).map {
      Int(tensor.rawPointer.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self))
    }
  }
}
