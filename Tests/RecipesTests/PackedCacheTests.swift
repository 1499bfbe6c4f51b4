import Checkpoints
import Foundation
import Models
import Recipes
import TestSupport
import Testing

/// A small quantized model, packed twice: made, then mapped.
@Test func packedWeightsAreMappedAtTheNextStart() throws {
  try withTemporaryDirectory { folder in
    let model = SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources/stories").path
    var stage = QuantizeStage()
    stage.granularity = .group(64)
    _ = try Compression(Recipe(name: "test", stages: [.quantize(stage)]), model: model)
      .run(output: "\(folder)/small", overwrite: false)
    func logits() throws -> [Float] {
      let packed = try LanguageModel.load("\(folder)/small")
        .withActivations(.int8, cachedIn: folder)
      let hidden = try packed.hidden([1, 5, 9], cache: packed.cache(plannedLength: 3))
      return packed.logits(hidden).array
    }
    func caches() throws -> [String] {
      try FileManager.default.contentsOfDirectory(atPath: folder)
        .filter { $0.hasPrefix("packed-") }
    }
    let made = try logits()
    let name = try #require(try caches().first)
    #expect(try logits() == made)
    #expect(try caches() == [name])
    // Another file in its place is neither used nor overwritten.
    let path = "\(folder)/\(name)"
    try FileManager.default.removeItem(atPath: path)
    try FileManager.default.copyItem(atPath: "\(model)/model.safetensors", toPath: path)
    #expect(throws: ModelError.self) { _ = try logits() }
  }
}
