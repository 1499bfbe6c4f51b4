public import ArgumentParser
import Models
public import Tensors

/// What every command that computes shares: how many threads, and in what the cache is kept.
struct RuntimeOptions: ParsableArguments {
  @Option(name: .shortAndLong, help: "Threads; default: the processors this process may use.")
  var threads: Int?

  @Option(help: "What keys and values are kept in: float32, float16 or int8.")
  var kvCache: KeyValueRows.ElementType?

  func validate() throws {
    if let threads, !(1...256).contains(threads) {
      throw ValidationError("--threads must be between 1 and 256.")
    }
  }

  /// Loads a model to be computed with.
  func load(_ model: ModelArgument) throws -> LanguageModel {
    if let threads { Parallel.threads = threads }
    return try model.load()
  }

  func cacheType(for model: LanguageModel) -> KeyValueRows.ElementType { kvCache ?? .float32 }
}

extension KeyValueRows.ElementType: ExpressibleByArgument {}
