import Calibration
import Models
import Tensors
import Training

/// The objective of methods that learn a block: the mean squared difference between its outputs on
/// the compressed stream and what the uncompressed block made of the uncompressed one.
struct BlockReconstruction {
  let problem: BlockProblem

  func texts(_ batch: Int) -> Int { problem.context(batch).sequences.count }

  private func tokens(_ batch: Int) -> Int {
    problem.context(batch).sequences.reduce(0) { $0 + $1.rows.count }
  }

  /// Over all batches, nothing recorded.
  func error(of block: Block) throws -> Double {
    let block = block.mappingTensors(\.detached)
    var sum = 0.0
    var count = 0
    for batch in 0..<problem.batches {
      let output = block.forward(try problem.input(batch), problem.context(batch))
      let target = try problem.target(batch)
      precondition(output.shape == target.shape)
      let weights = [Float](repeating: 1, count: output.rows)
      sum += Self.squaredError(output, target, weights)
      count += output.rows
    }
    return sum / Double(max(count, 1))
  }

  /// The loss over some batches; gradients arrive at the leaves of the block's tensors. Batches are
  /// computed and differentiated one after the other, while what lies before the block's tensors (the
  /// rounding of a matrix) is passed once.
  func learn(_ block: Block, on batches: [Int]) throws -> Double {
    var tensors: [Tensor] = []
    _ = block.mappingTensors {
      if $0.node != nil { tensors.append($0) }
      return $0
    }
    let total = batches.reduce(0) { $0 + tokens($1) }
    let loss = try Tape.sum(tensors, over: batches.count) { piece, leaves in
      var next = 0
      let block = block.mappingTensors { tensor in
        guard tensor.node != nil else { return tensor }
        defer { next += 1 }
        return leaves[next]
      }
      let batch = batches[piece]
      let output = block.forward(try problem.input(batch), problem.context(batch))
      let weights = [Float](repeating: 1 / Float(max(total, 1)), count: output.rows)
      return output.squaredError(to: try problem.target(batch), weights: weights)
    }
    Tape.backward([(loss, Tensor([1], shape: [1]))])
    return Double(loss.floats[0])
  }

  /// Steps of learning how to round, and the best of three: the rounding before them, the iterate
  /// whose loss was least on the texts it was made from, and the last one.
  ///
  /// - Parameters:
  ///   - weights: the block's rounded matrices as the parameters say now.
  ///   - step: changes the parameters by their gradients and clears those; told what part of the
  ///     iterations remains, from 1 down to more than 0.
  func search(
    _ iterations: Int, textsPerStep: Int, _ matrices: [BlockMatrix],
    weights: () -> [FakeQuantizedWeight], step: (_ remaining: Double) throws -> Void
  ) throws -> (weights: [FakeQuantizedWeight], loss: (before: Double, after: Double)) {
    let plain = weights().map(\.constant)
    var best: (loss: Double, weights: [FakeQuantizedWeight])?
    var order = BatchOrder(problem, texts: (0..<problem.batches).map(texts))
    for iteration in 0..<(problem.batches > 0 ? iterations : 0) {
      let current = weights()
      let batches = order.next(texts: textsPerStep)
      let loss = try learn(problem.block.with(current, for: matrices), on: batches)
      if loss < best?.loss ?? .infinity { best = (loss, current.map(\.constant)) }
      try step(1 - Double(iteration) / Double(iterations))
    }
    let before = try error(of: problem.block.with(plain, for: matrices))
    var (result, after) = (plain, before)
    for candidate in [best?.weights, weights().map(\.constant)].compactMap({ $0 }) {
      let error = try error(of: problem.block.with(candidate, for: matrices))
      if error < after { (result, after) = (candidate, error) }
    }
    return (result, (before, after))
  }

  /// Σ over rows of the mean over columns, in double.
  private static func squaredError(_ x: Tensor, _ y: Tensor, _ weights: [Float]) -> Double {
    let (a, b, columns) = (Unshared(x.floats), Unshared(y.floats), x.columns)
    let sums = Parallel.map(x.rows) { row in
      var sum = 0.0
      for index in row * columns..<(row + 1) * columns {
        let difference = Double(a.value[index]) - Double(b.value[index])
        sum += difference * difference
      }
      return sum / Double(max(columns, 1))
    }
    return sums.reduce(0, +)
  }
}

/// Batches in a random order, every one before any comes again.
struct BatchOrder {
  private var random: Xoshiro256
  private var waiting: [Int] = []
  private let texts: [Int]

  /// - Parameter texts: in each batch.
  init(_ problem: BlockProblem, texts: [Int]) {
    self.texts = texts
    random = Xoshiro256(
      seed: problem.seed &+ UInt64(problem.index) &* 0x9e37_79b9_7f4a_7c15)
  }

  /// Batches with at least `texts` texts together, or all.
  mutating func next(texts wanted: Int) -> [Int] {
    var chosen: [Int] = []
    var sum = 0
    while sum < wanted, chosen.count < texts.count {
      if waiting.isEmpty { refill(without: chosen) }
      let batch = waiting.removeLast()
      chosen.append(batch)
      sum += max(texts[batch], 1)
    }
    return chosen
  }

  /// A new round in the midst of a choice begins with those that are not chosen yet.
  private mutating func refill(without chosen: [Int]) {
    var all = texts.indices.filter { !chosen.contains($0) }
    for index in all.indices.dropFirst().reversed() {
      all.swapAt(index, Int(random.next() % UInt64(index + 1)))
    }
    waiting = all
  }
}
