package import Models
import Runtime
import Tensors
package import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Continues prompts with a model, or with a mixture of two whose probabilities are averaged at
/// every token: p̃ = α p + (1 − α) q (Gu et al. 2024, arXiv:2306.08543, section 2.2).
///
/// All texts advance together, so that a step reads each weight once. Texts that end keep the token
/// that ends them: where to stop is part of what is learned.
package struct ContinuationSampler {
  /// Records nothing.
  private let model: LanguageModel
  private let other: (model: LanguageModel, share: Double)?
  package let settings: ContinuationSettings
  /// Tokens that whoever reads the texts can take in.
  private let contextLength: Int

  /// - Parameter reader: a model that the texts must fit too.
  package init(
    _ model: LanguageModel, for reader: LanguageModel? = nil, _ settings: ContinuationSettings
  ) {
    self.model = model.detached
    other = nil
    self.settings = settings
    contextLength = Self.contextLength([model, reader])
  }

  /// - Parameter share: of the teacher, α.
  /// - Throws: `vocabulariesDiffer`.
  package init(
    _ student: LanguageModel, mixedWith teacher: LanguageModel, share: Double,
    _ settings: ContinuationSettings
  ) throws(DistillationError) {
    let sizes = [student, teacher].map(\.configuration.vocabularySize)
    guard share == 0 || sizes[0] == sizes[1] else {
      throw .cannotCombine(sizes[0], sizes[1], use: "sampling from both")
    }
    model = student.detached
    other = share == 0 ? nil : (teacher.detached, share)
    self.settings = settings
    contextLength = Self.contextLength([student, teacher])
  }

  /// The longest text that can be continued.
  package var longestPrompt: Int { contextLength == .max ? .max : contextLength - 1 }

  private static func contextLength(_ models: [LanguageModel?]) -> Int {
    models.compactMap { $0?.configuration.contextLength }.min() ?? .max
  }

  /// - Parameters:
  ///   - prompts: none empty, none longer than `longestPrompt`.
  ///   - seeds: one for each prompt.
  /// - Returns: prompts with their continuations, of which alone each token counts.
  /// - Throws: `ModelError` for prompts outside the vocabulary or the context.
  package func continuations(of prompts: [[Int]], seeds: [UInt64]) throws -> [TrainingExample] {
    precondition(prompts.count == seeds.count)
    guard !prompts.isEmpty else { return [] }
    var samplers = seeds.map { Sampler(settings.sampler(seed: $0)) }
    var continuations = [[Int]](repeating: [], count: prompts.count)
    var pass = try Pass(model, prompts, maxNewTokens: settings.maxNewTokens)
    var otherPass = try other.map {
      try Pass($0.model, prompts, maxNewTokens: settings.maxNewTokens)
    }
    var live = Array(prompts.indices)
    while !live.isEmpty {
      var logits = pass.logits
      if let otherPass, let other {
        logits = Self.mixed(logits, otherPass.logits, share: other.share)
      }
      let (current, rows) = (samplers, live)
      let (base, columns) = (Unshared(logits.floats), logits.columns)
      let draws = withExtendedLifetime(logits) {
        Parallel.map(rows.count) { row in
          var sampler = current[rows[row]]
          let id = sampler.next(
            UnsafeBufferPointer(start: base.value + row * columns, count: columns))
          return (id, sampler)
        }
      }
      var going: [(row: Int, text: Int, token: Int)] = []
      for (row, (id, sampler)) in draws.enumerated() {
        let text = live[row]
        samplers[text] = sampler
        continuations[text].append(id)
        let length = prompts[text].count + continuations[text].count
        // The last token of a text is never an input, so it may stand just behind the context.
        if model.endTokens.contains(id) || continuations[text].count == settings.maxNewTokens
          || length > contextLength
        {
          continue
        }
        going.append((row, text, id))
      }
      live = going.map(\.text)
      if live.isEmpty { break }
      try pass.append(going.map { ($0.text, $0.token) })
      try otherPass?.append(going.map { ($0.text, $0.token) })
    }
    return zip(prompts, continuations).map { prompt, continuation in
      TrainingExample(
        tokens: prompt + continuation,
        counts: prompt.map { _ in false } + continuation.map { _ in true })
    }
  }

  /// log(α softmax(b) + (1 − α) softmax(a)), row by row.
  private static func mixed(_ a: Tensor, _ b: Tensor, share: Double) -> Tensor {
    let (sumsA, sumsB, columns) = (a.logSumExpRows(), b.logSumExpRows(), a.columns)
    let (sourceA, sourceB) = (Unshared(a.floats), Unshared(b.floats))
    return Tensor(shape: a.shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      withExtendedLifetime((a, b)) {
        Parallel.forEach(sumsA.count) { row in
          for i in row * columns..<(row + 1) * columns {
            let q = exp(Double(sourceA.value[i]) - sumsA[row])
            let p = exp(Double(sourceB.value[i]) - sumsB[row])
            target.value[i] = Float(log(share * p + (1 - share) * q))
          }
        }
      }
    }
  }

  /// One model's way through the texts.
  private struct Pass {
    let model: LanguageModel
    private let caches: [KVCache]
    /// Of the newest token of each text that goes on, `[texts, hidden]`.
    private var hidden: Tensor

    init(_ model: LanguageModel, _ prompts: [[Int]], maxNewTokens: Int) throws {
      self.model = model
      let context = model.configuration.contextLength ?? .max
      let caches = prompts.map {
        let (length, overflow) = $0.count.addingReportingOverflow(maxNewTokens)
        return model.cache(plannedLength: min(context, overflow ? .max : length))
      }
      self.caches = caches
      let all = try model.hidden(zip(prompts, caches).map { ($0, $1) })
      var ends: [Int] = []
      for prompt in prompts { ends.append((ends.last ?? -1) + prompt.count) }
      hidden = all.rows(at: ends)
    }

    var logits: Tensor { model.logits(hidden) }

    mutating func append(_ tokens: [(text: Int, token: Int)]) throws {
      hidden = try model.hidden(tokens.map { ([$0.token], caches[$0.text]) })
    }
  }
}
