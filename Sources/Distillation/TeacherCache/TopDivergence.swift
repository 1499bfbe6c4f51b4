import CKernels
import Evaluation
package import Models
package import Tensors
package import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// How far a model's predictions are from a cached teacher's: KL over the teacher's k most probable
/// tokens and one bucket for all others. Merging outcomes can only hide differences, so this is a
/// lower bound of the KL over the whole vocabulary, and its numbers compare only among themselves.
package struct TopDivergence: Sendable {
  /// At every scored position, nats.
  package let tokenKLs: [Double]
  package let k: Int
  package let settings: String

  package var tokens: Int { tokenKLs.count }
  package var mean: Double { Statistics.mean(tokenKLs) }
  package var standardError: Double { Statistics.standardError(tokenKLs) }
  /// The protocol, which is not that of a full KL.
  package var protocolName: String { "kl_topk (k = \(k)), \(settings)" }

  /// - Parameters:
  ///   - teacher: its cache covers the batches.
  ///   - stream: of the data and settings that the cache was made of.
  ///   - batches: how many of the stream's; all of a stream that ends when nil.
  /// - Throws: as `CachedTeacher`; `badSetting` for another vocabulary or a stream without end.
  package static func measure(
    _ model: LanguageModel, teacher: CachedTeacher, stream: TrainingStream, batches: Int? = nil,
    onProgress: (Int) throws -> Void = { _ in }
  ) throws -> TopDivergence {
    let vocabulary = model.configuration.vocabularySize
    guard vocabulary == teacher.vocabularySize else {
      throw DistillationError.badSetting(
        "the vocabulary of the cached teacher", value: "\(teacher.vocabularySize) tokens",
        expected: "the model's \(vocabulary)")
    }
    guard batches != nil || stream.options.passes != nil else {
      throw DistillationError.badSetting(
        "the number of batches", value: "absent", expected: "given for data without an end")
    }
    let model = model.detached
    var stream = stream
    var values: [Double] = []
    var done = 0
    while done < batches ?? Int.max, let batch = try stream.next() {
      _ = try teacher.begin(batch, wanting: .none)
      let hidden = try model.hidden(tokens: batch.inputs, segments: batch.segments)
      let wanted = batch.wantedRows
      for first in stride(from: 0, to: wanted.count, by: model.headRows) {
        let places = Array(wanted[first..<min(first + model.headRows, wanted.count)])
        guard case .top(let top) = try teacher.rows(places) else { continue }
        values += compare(model.logits(hidden.rows(at: places)), top)
      }
      done += 1
      try onProgress(done)
    }
    guard values.allSatisfy(\.isFinite) else {
      throw EvaluationError.notFinite(model: model.checkpoint.path)
    }
    return TopDivergence(
      tokenKLs: values, k: teacher.file.code.k, settings: teacher.file.identity.settings)
  }

  /// KL(teacher ‖ model) of rows, over the top tokens and the rest as one.
  /// - Parameter logits: `[rows, vocabulary]`
  package static func compare(_ logits: Tensor, _ top: TopProbabilities) -> [Double] {
    let (base, columns, k) = (Unshared(logits.floats), logits.columns, top.k)
    defer { withExtendedLifetime(logits) {} }
    return Parallel.map(logits.rows) { row in
      let logits = base.value + row * columns
      let places = (row * k)..<((row + 1) * k)
      let largest = pare_max(logits, columns)
      return withUnsafeTemporaryAllocation(of: Float.self, capacity: columns) { buffer in
        guard let rest = buffer.baseAddress else { return 0.0 }
        _ = pare_exp_shifted(logits, largest, rest, columns)
        for place in places { rest[Int(top.ids[place])] = 0 }
        var others = 0.0
        for column in 0..<columns { others += Double(rest[column]) }
        let kept = places.reduce(0.0) {
          $0 + exp(Double(logits[Int(top.ids[$1])]) - Double(largest))
        }
        let logSum = log(others + kept)
        var (sum, mass) = (0.0, 0.0)
        for place in places {
          let logP = Double(top.logProbabilities[place])
          let p = exp(logP)
          let logQ = Double(logits[Int(top.ids[place])]) - Double(largest) - logSum
          sum += p * (logP - logQ)
          mass += p
        }
        let tail = 1 - mass
        // Below what float32 log-probabilities can tell from nothing.
        if tail > 1e-6 * Double(k).squareRoot(), others > 0 {
          sum += tail * (log(tail) - (log(others) - logSum))
        }
        return max(sum, 0)
      }
    }
  }
}
