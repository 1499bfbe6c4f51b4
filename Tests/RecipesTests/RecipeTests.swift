import Codecs
import Models
import Recipes
import Testing

private func error(_ yaml: String) -> RecipeError? {
  do {
    _ = try Recipe(yaml: yaml, name: "test")
    return nil
  } catch {
    return error
  }
}

@Test func everyKeyOfARecipeIsRead() throws {
  let recipe = try Recipe(
    yaml: """
      name: mixed
      seed: 7
      stages:
        - quantize:
            method: rtn
            bits: 3
            group_size: 32
            symmetric: false
            clipping: mse
            targets: [attention.q, "mlp.*"]
            ignore: "*.0.*"
            blocks: 1-3
            indivisible: skip
        - quantize: {bits: 8, strategy: channel, format: int-quantized, targets: head}
      """, name: "file")
  #expect(recipe.name == "mixed")
  #expect(recipe.seed == 7)
  guard case .quantize(let first) = recipe.stages[0], case .quantize(let second) = recipe.stages[1]
  else { return }
  #expect(first.bits == 3)
  #expect(first.granularity == .group(32))
  #expect(!first.isSymmetric)
  #expect(first.clipping == .mse)
  #expect(first.targets.map(\.text) == ["attention.q", "mlp.*"])
  #expect(first.ignore.map(\.text) == ["*.0.*"])
  #expect(first.blocks == 1...3)
  #expect(first.indivisible == .skip)
  #expect(second.granularity == .channel)
  #expect(second.format == .int8)
  #expect(second.targets.map(\.text) == ["head"])
}

@Test(arguments: [
  ("stages:\n  - quantize:\n      bitz: 4\n", 3, "bitz"),
  ("stages:\n  - quantize:\n      bits: 7\n", 3, "7"),
  ("stages:\n  - quantize:\n      bits: four\n", 3, "four"),
  ("stages:\n  - quantize:\n      bits: 4\n      group_size: 8\n", 3, "8"),
  ("stages:\n  - quantize:\n      format: int-quantized\n", 3, "int-quantized"),
  ("stages:\n  - quantize: {targets: {a: b}}\n", 2, "targets"),
  ("stages:\n  - prune: {}\n", 2, "prune"),
  ("seed: -1\nstages: [{quantize: {}}]\n", 1, "-1"),
  ("stages:\n  - quantize:\n      blocks: 3-1\n", 3, "3-1"),
  ("stages:\n  - quantize:\n      bits: 4\n      bits: 3\n", 4, "twice"),
  ("stages: [\n", 2, "node"),
  ("stages: []\n", 1, "no stages"),
  ("- quantize\n", 1, "mapping"),
])
func mistakesAreNamedWithTheirLine(yaml: String, line: Int, word: String) throws {
  let text = try #require(error(yaml)).description
  // A setting's line may be its stage's first line, never one outside the stage.
  #expect(text.contains("recipe line"), "\(text)")
  #expect(text.contains(word), "\(text)")
  let said = text.split(whereSeparator: { !$0.isNumber }).first.flatMap { Int($0) }
  #expect(abs((said ?? 0) - line) <= 1, "\(text)")
}

@Test func anEmptyRecipeIsRefused() {
  #expect(error("") != nil)
  #expect(error("42") != nil)
}

@Test func presetsAreKnownByNameAndValid() throws {
  for name in Recipe.presets.keys {
    let recipe = try Recipe.named(name)
    for case .quantize(let stage) in recipe.stages { try stage.validate() }
  }
  #expect(throws: RecipeError.unknownPreset("w5", known: Recipe.presets.keys.sorted())) {
    try Recipe.named("w5")
  }
}

@Test(arguments: [
  ("linear", true), ("mlp.down", true), ("mlp.*", true), ("model.layers.3.mlp.down_proj", true),
  ("*.3.*", true), ("re:.*down_proj$", true), ("re:model\\.layers\\.3\\.", true),
  ("*", true), ("mlp.down?proj", false), ("mlp", false), ("*.4.*", false), ("re:down_proj", false),
  ("", false),
])
func targetsMatchRolesModulesAndPatterns(target: String, matches: Bool) throws {
  let tensor = ModelTensor(
    name: "model.layers.3.mlp.down_proj.weight", shape: [48, 80], role: .down, block: 3)
  #expect(try Target(target).matcher().matches(tensor, module: tensor.module) == matches)
}
