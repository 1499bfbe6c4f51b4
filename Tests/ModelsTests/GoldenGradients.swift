import Foundation
import Models
import Tensors
import TestSupport
import Text

/// What PyTorch finds for a golden checkpoint (Scripts/fixtures/gradients.py).
struct GoldenGradients {
  /// Of one parameter: its norm, its product with `projection`, some of its numbers.
  struct Summary {
    var norm: Double
    var product: Double
    var entries: [Double]

    static let entryCount = 16

    init(_ gradient: Tensor) {
      let values = gradient.array.map(Double.init)
      norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      product = values.enumerated().reduce(0) { $0 + Self.projection($1.offset) * $1.element }
      let step = max(1, values.count / Self.entryCount)
      entries = Array(stride(from: 0, to: values.count, by: step).map { values[$0] }.prefix(16))
    }

    init?(_ json: JSON) {
      let values = json.array?.compactMap(\.double) ?? []
      guard values.count > 2 else { return nil }
      (norm, product, entries) = (values[0], values[1], Array(values[2...]))
    }

    /// In [-1, 1): multiples of Knuth's constant.
    private static func projection(_ index: Int) -> Double {
      Double(UInt32(truncatingIfNeeded: (index + 1) &* 2_654_435_761)) / 0x1p31 - 1
    }

    /// Largest difference, relative to the norm.
    func error(from other: Summary) -> Double {
      guard entries.count == other.entries.count else { return .infinity }
      let differences =
        [norm - other.norm, product - other.product] + zip(entries, other.entries).map { $0 - $1 }
      let worst = differences.map(abs).reduce(0) { $1.isFinite ? max($0, $1) : .infinity }
      return worst / max(other.norm, 1e-30)
    }
  }

  var rate: Double
  /// Before each step of gradient descent at that rate.
  var losses: [Double]
  var gradients: [String: Summary] = [:]

  init(_ golden: GoldenModel) throws {
    let path = SharedFiles.packageRoot.appending(path: "Tests/Golden/gradients/\(golden.name).json")
    let json = try JSON.parse([UInt8](Data(contentsOf: path)), name: path.path)
    rate = json["rate"]?.double ?? 0
    losses = json["losses"]?.array?.compactMap(\.double) ?? []
    for (name, values) in json["gradients"]?.object ?? JSONObject() {
      gradients[String(decoding: name, as: UTF8.self)] = Summary(values)
    }
  }
}

/// A model in training and the two texts of its golden file.
struct TrainedModel {
  var model: LanguageModel
  var parameters: [Parameter]
  /// Of both texts.
  var tokens: [Int]
  var segments: [Range<Int>]
  var recomputing = false

  init(_ golden: GoldenModel, _ type: DType = .float32) throws {
    (model, parameters) = try LanguageModel.load(golden.folder).withParameters(type)
    let texts = try golden.golden().prompts.map(\.tokens)
    tokens = texts.flatMap { $0 }
    segments = [0..<texts[0].count, texts[0].count..<tokens.count]
  }

  /// The mean cross-entropy of every next token; its gradients arrive at the parameters.
  func loss() throws -> Double {
    let wanted = segments.flatMap { $0.dropLast() }
    let hidden = try model.hidden(
      tokens: tokens, segments: segments, recomputing: recomputing)
    let (sum, gradient) = model.headLoss(hidden, wanted: wanted) { rows, logits in
      var sum = 0.0
      var derivative: [Float] = []
      for (index, row) in rows.enumerated() {
        let values = logits.rows(index..<index + 1).array.map(Double.init)
        let largest = values.max() ?? 0
        let total = values.reduce(0) { $0 + exp($1 - largest) }
        let target = tokens[row + 1]
        sum += largest + log(total) - values[target]
        derivative += values.enumerated().map { id, value in
          Float((exp(value - largest) / total - (id == target ? 1 : 0)) / Double(wanted.count))
        }
      }
      return (sum, Tensor(derivative, shape: logits.shape))
    }
    Tape.backward([(hidden, gradient)])
    return sum / Double(wanted.count)
  }

  func clearGradients() { for parameter in parameters { parameter.clearGradient() } }

  func descend(_ rate: Double) {
    for parameter in parameters {
      guard let gradient = parameter.gradient else { continue }
      let values = parameter.mutableFloats
      for i in 0..<parameter.count { values[i] -= Float(rate) * gradient.floats[i] }
    }
  }
}
