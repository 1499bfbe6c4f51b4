import Calibration
import Checkpoints
import Models
import Tensors
import TestSupport
import Testing

private func golden(_ name: String) -> String {
  SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures/\(name)").path
}

/// A linear map in Double that remembers what it was given.
private final class Recorder {
  var inputs: [String: [[Double]]] = [:]

  func multiply(_ x: [[Double]], _ name: String, _ checkpoint: Checkpoint) throws -> [[Double]] {
    inputs[name, default: []] += x
    let weight = try checkpoint.tensor("\(name).weight").converted(to: .float32)
    let (outputs, columns) = (weight.shape[0], weight.shape[1])
    return x.map { row in
      (0..<outputs).map { output in
        (0..<columns).reduce(0) { $0 + row[$1] * Double(weight.floats[output * columns + $1]) }
      }
    }
  }
}

/// A plain Llama forward pass written from the paper.
private func oracle(_ path: String, _ tokens: [Int]) throws -> [String: [[Double]]] {
  let model = try LanguageModel.load(path)
  let (checkpoint, configuration) = (model.checkpoint, model.configuration)
  let recorder = Recorder()
  func vector(_ name: String) throws -> [Double] {
    let tensor = try checkpoint.tensor(name).converted(to: .float32)
    return (0..<tensor.count).map { Double(tensor.floats[$0]) }
  }
  func norm(_ x: [[Double]], _ configuration: NormConfiguration) throws -> [[Double]] {
    let weight = try vector("\(configuration.name).weight")
    return x.map { row in
      let mean = row.reduce(0) { $0 + $1 * $1 } / Double(row.count)
      let scale = 1 / (mean + Double(configuration.epsilon)).squareRoot()
      return zip(row, weight).map { $0 * scale * $1 }
    }
  }
  let table = try vector("\(configuration.embedding.name).weight")
  let width = configuration.hiddenSize
  var x = tokens.map { Array(table[($0 * width)..<(($0 + 1) * width)]) }
  for block in configuration.blocks {
    let attention = block.attention
    let input = try norm(x, try #require(block.attentionNorms.before))
    var (q, k, v) = (
      try recorder.multiply(input, attention.inputs[0].name, checkpoint),
      try recorder.multiply(input, attention.inputs[1].name, checkpoint),
      try recorder.multiply(input, attention.inputs[2].name, checkpoint)
    )
    let (size, half) = (attention.headDim, attention.headDim / 2)
    let frequencies = try #require(attention.rotary).inverseFrequencies(length: tokens.count)
    func rotate(_ rows: inout [[Double]], heads: Int) {
      for position in rows.indices {
        for head in 0..<heads {
          for i in 0..<half {
            let angle = Double(position) * Double(frequencies[i])
            let (a, b) = (rows[position][head * size + i], rows[position][head * size + i + half])
            rows[position][head * size + i] = a * cosine(angle) - b * sine(angle)
            rows[position][head * size + i + half] = b * cosine(angle) + a * sine(angle)
          }
        }
      }
    }
    rotate(&q, heads: attention.heads)
    rotate(&k, heads: attention.keyValueHeads)
    let group = attention.heads / attention.keyValueHeads
    let mixed = tokens.indices.map { position in
      (0..<attention.heads).flatMap { head -> [Double] in
        let (at, shared) = (head * size, head / group * size)
        let scores: [Double] = (0...position).map { other -> Double in
          var sum = 0.0
          for e in 0..<size { sum += q[position][at + e] * k[other][shared + e] }
          return sum * Double(attention.scale)
        }
        let top = scores.max() ?? 0
        let weights = scores.map { exponential($0 - top) }
        let total = weights.reduce(0, +)
        return (0..<size).map { i in
          weights.indices.reduce(0) { $0 + weights[$1] / total * v[$1][shared + i] }
        }
      }
    }
    let branch = try recorder.multiply(mixed, attention.output.name, checkpoint)
    x = zip(x, branch).map { zip($0, $1).map(+) }
    let inner = try norm(x, try #require(block.feedForwardNorms.before))
    let gate = try recorder.multiply(inner, block.feedForward.inputs[0].name, checkpoint)
    let up = try recorder.multiply(inner, block.feedForward.inputs[1].name, checkpoint)
    let gated = zip(gate, up).map { zip($0, $1).map { $0 / (1 + exponential(-$0)) * $1 } }
    let down = try recorder.multiply(gated, block.feedForward.down.name, checkpoint)
    x = zip(x, down).map { zip($0, $1).map(+) }
  }
  recorder.inputs["head"] = try norm(x, try #require(configuration.finalNorm))
  return recorder.inputs
}

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif
private func cosine(_ x: Double) -> Double { cos(x) }
private func sine(_ x: Double) -> Double { sin(x) }
private func exponential(_ x: Double) -> Double { exp(x) }

@Test func importanceIsTheMeanSquareOfEveryMatrixInput() throws {
  let path = golden("llama3")
  let texts = [[1, 5, 60, 33, 8, 2, 17], [40, 3, 3, 59, 12, 27, 44]]
  let model = try LanguageModel.load(path)
  let matrix = try ImportanceMatrix.measure(
    model, texts: texts, name: { [$0.role == .head ? "head" : $0.module] })
  #expect(matrix.chunkCount == 2 && matrix.chunkSize == 7)
  let inputs = try texts.map { try oracle(path, $0) }
  let names = Set(model.configuration.blocks.flatMap { $0.linears.map(\.name) } + ["head"])
  #expect(Set(matrix.entries.keys) == names)
  for name in names {
    let rows = try inputs.flatMap { try #require($0[name]) }
    let found = try #require(matrix.meanSquares(name))
    #expect(matrix.entries[name]?.counts == [14] && found.count == rows[0].count)
    let wanted = found.indices.map { column in
      rows.reduce(0) { $0 + $1[column] * $1[column] } / Double(rows.count)
    }
    let scale = wanted.max() ?? 0
    for (a, b) in zip(found, wanted) { #expect(abs(Double(a) - b) <= 1e-5 * scale, "\(name)") }
  }
}
