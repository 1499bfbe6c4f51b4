import Codecs
import Models
import Tensors
import Testing

/// A golden model with every linear and the head on 8-bit grids, which change logits little.
private func quantized(_ name: String) throws -> LanguageModel {
  var model = try LanguageModel.load("\(GoldenModel.root.appending(path: name).path)")
  let codec = try AffineGroups(bits: 8, granularity: .channel)
  func encode(_ weight: any Weight) throws -> any Weight { try codec.encode(weight.dequantized()) }
  for index in model.blocks.indices {
    for input in model.blocks[index].attentionInputs.indices {
      model.blocks[index].attentionInputs[input].weight = try encode(
        model.blocks[index].attentionInputs[input].weight)
    }
    for input in model.blocks[index].feedForwardInputs.indices {
      model.blocks[index].feedForwardInputs[input].weight = try encode(
        model.blocks[index].feedForwardInputs[input].weight)
    }
    model.blocks[index].attentionOutput.weight = try encode(
      model.blocks[index].attentionOutput.weight)
    model.blocks[index].feedForwardOutput.weight = try encode(
      model.blocks[index].feedForwardOutput.weight)
  }
  model.head = try encode(model.head)
  if model.configuration.head.isTied { model.embedding.table = model.head }
  return model
}

private func logits(_ model: LanguageModel, _ tokens: [Int]) throws -> [Float] {
  let cache = model.cache(plannedLength: tokens.count)
  return model.logits(try model.hidden(tokens, cache: cache)).array
}

@Test(arguments: ["llama2", "gemma2", "qwen3"])
func packedModelsAgreeWithTheirSourcesUpToTheActivations(name: String) throws {
  let exact = try quantized(name)
  let packed = try exact.withActivations(.int8)
  #expect(packed.head is PackedWeight == (exact.head.inputs % 32 == 0))
  if packed.configuration.head.isTied {
    let table = packed.embedding.table.rows(at: [0, 7, 3])
    #expect(table.hasSameBytes(as: exact.embedding.table.rows(at: [0, 7, 3])))
  }
  let tokens = try #require(
    GoldenModel.all.first { $0.name == name }?.golden().prompts.first?.tokens)
  let (a, b) = (try logits(exact, tokens), try logits(packed, tokens))
  let size = (a.reduce(0) { $0 + $1 * $1 } / Float(a.count)).squareRoot()
  let gap = (zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / Float(a.count))
    .squareRoot()
  #expect(gap < 0.03 * size, "\(gap) of \(size)")
  #expect(gap > 0 || packed.head is GroupQuantizedWeight)
  // Token by token and all at once are the same numbers up to attention's sums.
  let cache = packed.cache(plannedLength: tokens.count)
  var last: [Float] = []
  for token in tokens { last = packed.logits(try packed.hidden([token], cache: cache)).array }
  for (one, all) in zip(last, b.suffix(last.count)) { #expect(abs(one - all) < 2e-2 * size) }
  #expect(try exact.withActivations(.float32).head is GroupQuantizedWeight)
}
