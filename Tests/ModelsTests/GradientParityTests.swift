import Models
import Tensors
import Testing

@Test(arguments: GoldenModel.all)
func gradientsAgreeWithPyTorch(golden: GoldenModel) throws {
  let expected = try GoldenGradients(golden)
  let training = try TrainedModel(golden)
  let loss = try training.loss()
  #expect(abs(loss - expected.losses[0]) < 1e-5 * expected.losses[0])
  #expect(Set(training.parameters.map(\.name)) == Set(expected.gradients.keys))
  #expect(training.parameters.count == expected.gradients.count)
  // Parameters whose gradient is zero but for rounding, such as biases of keys, have no digits.
  let largest = expected.gradients.values.map(\.norm).max() ?? 0
  for parameter in training.parameters {
    guard let gradient = parameter.gradient, let other = expected.gradients[parameter.name] else {
      Issue.record("\(parameter.name) has no gradient")
      continue
    }
    #expect(gradient.shape == parameter.shape)
    let found = GoldenGradients.Summary(gradient)
    if other.norm < 1e-6 * largest {
      #expect(found.norm < 1e-5 * largest, "\(parameter.name)")
    } else {
      let error = found.error(from: other)
      #expect(error < 5e-5, "\(parameter.name)")
    }
  }
}

@Test(arguments: GoldenModel.all)
func tenStepsLoseAsPyTorchDoes(golden: GoldenModel) throws {
  let expected = try GoldenGradients(golden)
  let training = try TrainedModel(golden)
  #expect(expected.losses.count == 10)
  for (step, other) in expected.losses.enumerated() {
    training.clearGradients()
    let loss = try training.loss()
    #expect(abs(loss - other) < 1e-4 * other, "step \(step): \(loss), not \(other)")
    training.descend(expected.rate)
  }
}

@Test(arguments: GoldenModel.all)
func wholeTextsSideBySideEqualEachThroughACache(golden: GoldenModel) throws {
  let model = try LanguageModel.load(golden.folder)
  let texts = try golden.golden().prompts.map(\.tokens)
  // The first comes again, so that texts begin and end in several places.
  let all = texts + [texts[0]]
  var segments: [Range<Int>] = []
  for text in all {
    let first = segments.last?.upperBound ?? 0
    segments.append(first..<first + text.count)
  }
  let together = try model.hidden(tokens: all.flatMap { $0 }, segments: segments)
  for (text, segment) in zip(all, segments) {
    let cached = try model.hidden(text, cache: model.cache(plannedLength: text.count)).array
    let size = cached.map(abs).max() ?? 0
    let worst = zip(together.rows(segment).array, cached).map { abs($0 - $1) }.max() ?? 0
    #expect(worst <= 1e-5 * size, "\(worst / size)")
  }
}

@Test(arguments: GoldenModel.all)
func recomputingAndThreadsLeaveGradientsAsTheyAre(golden: GoldenModel) throws {
  func run(recomputing: Bool = false, threads: Int) throws -> [[Float]?] {
    let before = Parallel.threads
    defer { Parallel.threads = before }
    Parallel.threads = threads
    var training = try TrainedModel(golden)
    training.recomputing = recomputing
    let loss = try training.loss()
    return [[Float(loss)]] + training.parameters.map { $0.gradient?.array }
  }
  let plain = try run(threads: 2)
  let (again, alone) = try (run(recomputing: true, threads: 2) == plain, run(threads: 1) == plain)
  #expect(again)
  #expect(alone)
}

/// The checkpoints' matrices are bfloat16, so that parameters of that type lose nothing.
@Test(arguments: GoldenModel.all)
func parametersInHalfTheMemoryHaveTheSameGradients(golden: GoldenModel) throws {
  let (wide, narrow) = (try TrainedModel(golden), try TrainedModel(golden, .bfloat16))
  let loss = try wide.loss()
  #expect(abs(try narrow.loss() - loss) < 1e-6 * loss)
  for (a, b) in zip(wide.parameters, narrow.parameters) {
    guard let first = a.gradient, let second = b.gradient else { continue }
    let (x, y) = (GoldenGradients.Summary(first), GoldenGradients.Summary(second))
    if x.norm > 1e-6 {
      #expect(y.error(from: x) < 1e-4, "\(a.name)")
    }
  }
}

@Test func onlyWhatIsTrainedHasGradients() throws {
  for golden in GoldenModel.all {
    let whole = try TrainedModel(golden)
    _ = try whole.loss()
    let all = Dictionary(uniqueKeysWithValues: whole.parameters.map { ($0.name, $0.gradient) })
    // Frozen matrices stay bfloat16, whose products round otherwise.
    let largest = all.values.compactMap { $0.map { GoldenGradients.Summary($0).norm } }.max() ?? 0
    for isBlock in [true, false] {
      var part = whole
      (part.model, part.parameters) = try LanguageModel.load(golden.folder).withParameters {
        ($0.block == 1) == isBlock
      }
      #expect(!part.parameters.isEmpty && part.parameters.count < all.count)
      _ = try part.loss()
      for parameter in part.parameters {
        guard let found = parameter.gradient, let expected = all[parameter.name] ?? nil else {
          Issue.record("\(golden.name): \(parameter.name) has no gradient")
          continue
        }
        let summary = GoldenGradients.Summary(expected)
        let error = GoldenGradients.Summary(found).error(from: summary) * summary.norm
        #expect(
          error < 1e-4 * summary.norm + 1e-6 * largest, "\(golden.name): \(parameter.name)")
      }
    }
    #expect(try whole.model.detached.hidden(tokens: [3, 4], segments: [0..<2]).gradient == nil)
  }
}
