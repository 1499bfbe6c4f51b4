import Models
import Tensors
import Testing
import Text

private let tolerance: Float = 2e-4

@Test func everyFamilyHasAGolden() throws {
  let types = try Set(GoldenModel.all.compactMap { try $0.config()["model_type"]?.string })
  #expect(types == Set(ModelConfiguration.supportedModelTypes))
}

@Test(arguments: GoldenModel.all)
func logitsAgreeWithTransformers(golden: GoldenModel) throws {
  let model = try LanguageModel.load(golden.folder)
  for prompt in try golden.golden().prompts {
    let result = try compare(model, prompt)
    #expect(result.error < tolerance)
    #expect(result.sameTop)
  }
}

@Test(arguments: GoldenModel.all.filter(\.hasOldSpelling))
func configsOfTransformers4MeanTheSame(golden: GoldenModel) throws {
  try golden.withConfig(golden.config("config-4.json")) { folder in
    let model = try LanguageModel.load(folder)
    for prompt in try golden.golden().prompts {
      #expect(try compare(model, prompt).error < tolerance)
    }
  }
}

/// A comparison that another window, base or scale would pass proves nothing.
@Test(arguments: GoldenModel.all)
func everyConfigValueThatMattersBreaksTheComparison(golden: GoldenModel) throws {
  let prompts = try golden.golden().prompts
  for (path, value) in try golden.mutations() {
    let config = try golden.config().replacing(path, with: value)
    let worst: Float = try golden.withConfig(config) { folder in
      guard let model = try? LanguageModel.load(folder) else { return .infinity }
      return try prompts.map { try compare(model, $0).error }.max() ?? 0
    }
    #expect(worst > 5 * tolerance, "\(path.joined(separator: ".")) = \(value)")
  }
}

@Test(arguments: GoldenModel.all)
func tokenByTokenEqualsAllAtOnce(golden: GoldenModel) throws {
  let model = try LanguageModel.load(golden.folder)
  for prompt in try golden.golden().prompts {
    let cache = model.cache(plannedLength: prompt.tokens.count)
    var worst: Float = 0
    var largest: Float = 0
    for (position, token) in prompt.tokens.enumerated() {
      let logits = model.logits(try model.hidden([token], cache: cache))
      let columns = logits.columns
      for column in 0..<columns {
        let expected = prompt.logits[position * columns + column]
        worst = max(worst, abs(logits.floats[column] - expected))
        largest = max(largest, abs(expected))
      }
    }
    #expect(worst < tolerance * largest)
  }
}
