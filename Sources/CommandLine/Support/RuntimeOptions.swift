public import ArgumentParser
import Codecs
public import Models
public import Tensors
import Training

/// What every command that computes shares: threads, and how activations and the cache are kept.
struct RuntimeOptions: ParsableArguments {
  @Option(name: .shortAndLong, help: "Threads; default: the processors this process may use.")
  var threads: Int?

  @Option(help: "Threads for reading prompts; default: as --threads.")
  var threadsBatch: Int?

  @Option(
    help: ArgumentHelp(
      "What quantized matrices are multiplied by: float32, exact, the default of logits and eval; "
        + "int8, several times faster, the default of run, chat and bench."))
  var activations: LanguageModel.Activations?

  @Option(
    help: ArgumentHelp(
      "What keys and values are kept in: float32, float16, int8 (a scale per row), fp8 (E4M3, no "
        + "scales) or int4 (keys on grids per channel, values per token). Default: float32, with int8 "
        + "activations float16."))
  var kvCache: KeyValueRows.ElementType?

  @Option(help: "Newest tokens that an int4 cache keeps as float16. Default: 128.")
  var kvWindow: Int?

  @Option(
    help: ArgumentHelp(
      "Keep packed weights here and map them at the next start: as large as the model. In eval "
        + "divergence also the baseline's logits: 4 bytes × tokens × vocabulary.",
      valueName: "directory"), completion: .directory)
  var cache: String?

  func validate() throws {
    if let kvWindow {
      guard kvWindow >= 1 else { throw ValidationError("--kv-window must be 1 or more.") }
      guard kvCache == .int4 else { throw ValidationError("--kv-window is for --kv-cache int4.") }
    }
    for (name, count) in [("--threads", threads), ("--threads-batch", threadsBatch)] {
      if let count, !(1...256).contains(count) {
        throw ValidationError("\(name) must be between 1 and 256.")
      }
    }
  }

  /// Loads a model the way results are measured: exact unless asked otherwise.
  func loadForMeasuring(_ path: String) throws -> LanguageModel {
    try load(path) { _ in .float32 }
  }

  /// Loads a model the way it is used: fast unless asked otherwise.
  /// - Parameter adapter: folder of adapters that are multiplied in.
  func loadForUse(_ path: String, adapter: String? = nil) throws -> LanguageModel {
    try load(path, adapter: adapter) { $0.isQuantized ? .int8 : .float32 }
  }

  private func load(
    _ path: String, adapter: String? = nil,
    default activationsOf: (LanguageModel) -> LanguageModel.Activations
  ) throws -> LanguageModel {
    if let threads { Parallel.threads = threads }
    var stored = try LanguageModel.load(path)
    if let adapter { stored = try AdapterFolder.read(adapter, onto: stored).model.merged() }
    let activations = activations ?? activationsOf(stored)
    var model = try stored.withActivations(activations, cachedIn: cache)
    model.cacheType = kvCache ?? (activations == .int8 ? .float16 : .float32)
    if let kvWindow { model.cacheWindow = kvWindow }
    model.prefillThreads = threadsBatch
    return model
  }
}

extension KeyValueRows.ElementType: ExpressibleByArgument {}
extension LanguageModel.Activations: ExpressibleByArgument {}
