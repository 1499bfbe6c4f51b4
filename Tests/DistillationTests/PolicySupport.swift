import Checkpoints
import Distillation
import Foundation
import Models
import Tensors
import Text
import Tokenizers
import Training

/// Random Llamas so small that everything about them can be enumerated.
struct PolicyModel {
  var vocabulary = 5
  var layers = 1
  var hidden = 8
  var context = 16
  /// Outside the vocabulary's reach for texts that must not end.
  var endToken: Int?
  var seed: UInt64 = 1

  func load(in folder: String) throws -> LanguageModel {
    let end = endToken.map { ", \"eos_token_id\": \($0)" } ?? ", \"eos_token_id\": null"
    let config = """
      {"model_type": "llama", "vocab_size": \(vocabulary), "hidden_size": \(hidden),
       "intermediate_size": 12, "num_hidden_layers": \(layers), "num_attention_heads": 2,
       "num_key_value_heads": 1, "max_position_embeddings": \(context), "rms_norm_eps": 1e-5,
       "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
       "bos_token_id": 0, "initializer_range": 0.6\(end)}
      """
    let path = "\(folder)/model-\(UUID())"
    let directory = try OutputDirectory(path, overwrite: true)
    let json = try JSON.parse(Array(config.utf8), name: "config.json")
    try ModelInitialization(config: json, path: path).write(to: directory, seed: seed)
    try directory.finish()
    return try LanguageModel.load(path)
  }
}

extension LanguageModel {
  /// Logits at every place of one text, by one pass of its own.
  func allLogits(_ tokens: [Int]) throws -> [[Double]] {
    let hidden = try hidden(tokens: tokens, segments: [0..<tokens.count])
    let logits = logits(hidden)
    return (0..<logits.rows).map { row in
      (0..<logits.columns).map { Double(logits.floats[row * logits.columns + $0]) }
    }
  }
}

func logSoftmax(_ logits: [Double]) -> [Double] {
  let best = logits.max() ?? 0
  let total = log(logits.reduce(0) { $0 + exp($1 - best) }) + best
  return logits.map { $0 - total }
}

/// KL(teacher ‖ student), or KL(student ‖ teacher), in plain loops.
struct PlainDivergence: LogitLoss {
  let name = "soft"
  let needsTeacher = true
  var isReverse = false

  func accumulate(
    _ rows: LogitRows, factor: Float, into gradient: UnsafeMutablePointer<Float>
  ) throws -> Double {
    guard case .logits(let teacher)? = rows.teacher else { return .nan }
    let columns = rows.student.columns
    func distribution(_ tensor: Tensor, _ row: Int) -> [Double] {
      logSoftmax((0..<columns).map { Double(tensor.floats[row * columns + $0]) })
    }
    var sum = 0.0
    for row in 0..<rows.student.rows {
      let q = distribution(rows.student, row), p = distribution(teacher, row)
      let weight = Double(rows.weights[row])
      let value =
        isReverse
        ? zip(q, p).reduce(0) { $0 + exp($1.0) * ($1.0 - $1.1) }
        : zip(q, p).reduce(0) { $0 + exp($1.1) * ($1.1 - $1.0) }
      sum += weight * value
      for j in 0..<columns {
        let slope = isReverse ? exp(q[j]) * (q[j] - p[j] - value) : exp(q[j]) - exp(p[j])
        gradient[row * columns + j] += factor * Float(weight * slope)
      }
    }
    return sum
  }
}

/// A tokenizer of one token for each letter, and data made of it.
enum LetterData {
  static let vocabulary = 29

  static func tokenizer() throws -> Tokenizer {
    var vocabulary = [("<s>", JSON(0)), ("</s>", JSON(1)), (" ", JSON(2))]
    for code in 97..<123 {
      vocabulary.append((String(UnicodeScalar(UInt8(code))), JSON(vocabulary.count)))
    }
    return try Tokenizer(
      json: [
        "added_tokens": [
          ["id": 0, "content": "<s>", "special": true],
          ["id": 1, "content": "</s>", "special": true],
        ],
        "model": ["type": "BPE", "vocab": .object(JSONObject(vocabulary)), "merges": []],
        "decoder": ["type": "Fuse"],
      ])
  }

  static func stream(_ folder: String, rows: Int, length: Int) throws -> TrainingStream {
    var random = Xoshiro256(seed: 3)
    let text = (0..<40).map { _ in
      String(
        (0..<14).map { _ in
          Character(UnicodeScalar(UInt8(97 + random.next() % 26)))
        })
    }.joined(separator: "<|endoftext|>")
    let path = "\(folder)/letters.txt"
    try Data(text.utf8).write(to: URL(filePath: path))
    let data = try TrainingData([DataSource(path: path, format: .text)], seed: 5)
    return try TrainingStream(
      data, encoder: ExampleEncoder(tokenizer: tokenizer(), beginToken: 0, endTokens: [1]),
      options: .init(rows: rows, length: length))
  }
}

extension TrainingBatch {
  /// One text of which all tokens count, or those after a prompt.
  static func text(_ tokens: [Int], prompt: Int = 0) -> TrainingBatch {
    TrainingBatch([
      TrainingExample(tokens: tokens, counts: tokens.indices.map { $0 >= prompt })
    ])
  }
}

/// All gradients, one after the other.
func gradients(_ parameters: [Parameter]) -> [Float] {
  parameters.flatMap { $0.gradient?.array ?? [Float](repeating: 0, count: $0.count) }
}

/// (f(θ + h) − f(θ − h)) / 2h for one number of a parameter.
func slope(_ parameter: Parameter, _ index: Int, step: Float = 4e-3, _ value: () throws -> Double)
  rethrows -> Double
{
  let old = parameter.mutableFloats[index]
  defer { parameter.mutableFloats[index] = old }
  parameter.mutableFloats[index] = old + step
  let (above, up) = (try value(), Double(parameter.mutableFloats[index]))
  parameter.mutableFloats[index] = old - step
  let (below, down) = (try value(), Double(parameter.mutableFloats[index]))
  return (above - below) / (up - down)
}

func sentence(_ body: () throws -> Void) -> String {
  do {
    try body()
    return "no error"
  } catch {
    return "\(error)"
  }
}
