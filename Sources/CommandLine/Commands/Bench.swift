import ArgumentParser
import Checkpoints
import Evaluation
import Foundation
import Models
import Recipes
import Runtime
import Tensors
import Text

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure a model's speed and memory on this machine.",
    discussion: """
      Reads a prompt of random tokens, then decodes single tokens from an empty cache, round by
      round; prints medians with the least and the greatest. The weights' bytes that a token reads
      are compared with what this machine reads from memory at best.

      Examples:
        pare bench MODEL
        pare bench MODEL --prompt-tokens 512 --generate-tokens 128 --threads 2 --repeat 5
        pare bench MODEL --json | jq .decode_tokens_per_second

      JSON keys: prefill_tokens_per_second, decode_tokens_per_second,
      time_to_first_token_seconds, each with _min and _max; load_seconds, peak_resident_bytes,
      weight_bytes, cache_bytes, read_bandwidth_bytes_per_second, read_bandwidth_share, threads,
      activations, kv_cache, prompt_tokens, generate_tokens, repeats.
      """)

  @OptionGroup var model: ModelArgument

  @Option(help: "Tokens of the prompt.")
  var promptTokens = 512

  @Option(help: "Tokens decoded one by one.")
  var generateTokens = 128

  @Option(help: "Rounds.")
  var `repeat` = 5

  @Flag(
    inversion: .prefixedNo, help: "Run a little first; without it the start itself is measured.")
  var warmUp = true

  @OptionGroup var runtime: RuntimeOptions
  @OptionGroup var report: ReportOptions

  func validate() throws {
    if promptTokens < 1 { throw ValidationError("--prompt-tokens must be 1 or more.") }
    if generateTokens < 1 { throw ValidationError("--generate-tokens must be 1 or more.") }
    if `repeat` < 1 { throw ValidationError("--repeat must be 1 or more.") }
  }

  func run() throws {
    let clock = ContinuousClock()
    let start = clock.now
    let loaded = try runtime.loadForUse(model.model)
    let loadSeconds = (clock.now - start) / .seconds(1)
    var settings = Benchmark.Settings()
    settings.promptTokens = promptTokens
    settings.generateTokens = generateTokens
    settings.repeats = `repeat`
    settings.warmsUp = warmUp
    let progress = ProgressLine("measuring", unit: "rounds")
    let result = try Benchmark.run(loaded, settings) { progress.update($0, of: $1) }
    progress.finish()
    // Before the buffer of the bandwidth measurement is there.
    let peak = ProcessMemory.peakResidentBytes
    let bandwidth = ReadBandwidth.measure()
    let weightBytes = loaded.weightBytesPerToken
    let share = result.decode.median * Double(weightBytes) / bandwidth
    if report.json {
      var fields: [(String, JSON)] = []
      for (name, samples) in [
        ("prefill_tokens_per_second", result.prefill), ("decode_tokens_per_second", result.decode),
        ("time_to_first_token_seconds", result.timeToFirstToken),
      ] {
        fields += [
          (name, JSON(samples.median)), ("\(name)_min", JSON(samples.least)),
          ("\(name)_max", JSON(samples.greatest)),
        ]
      }
      fields += [
        ("load_seconds", JSON(loadSeconds)),
        ("peak_resident_bytes", peak.map { JSON($0) } ?? .null),
        ("weight_bytes", JSON(weightBytes)), ("cache_bytes", JSON(result.cacheBytes)),
        ("read_bandwidth_bytes_per_second", JSON(bandwidth)),
        ("read_bandwidth_share", JSON(share)), ("threads", JSON(Parallel.threads)),
        ("activations", JSON(loaded.activations.rawValue)),
        ("kv_cache", JSON(loaded.cacheType.rawValue)),
        ("prompt_tokens", JSON(promptTokens)), ("generate_tokens", JSON(generateTokens)),
        ("repeats", JSON(`repeat`)),
      ]
      try Console.print(.object(JSONObject(fields)))
      return
    }
    func spread(_ samples: Benchmark.Samples, _ decimals: Int) -> String {
      "\(Format.number(samples.median, decimals)) (\(Format.number(samples.least, decimals))–"
        + "\(Format.number(samples.greatest, decimals)))"
    }
    var table = Table(["measured", "median (least–greatest)"], leading: [0, 1])
    table.add(["prefill of \(promptTokens)", "\(spread(result.prefill, 1)) tokens/s"])
    table.add(["decode of \(generateTokens)", "\(spread(result.decode, 2)) tokens/s"])
    table.add(["time to first token", "\(spread(result.timeToFirstToken, 3)) s"])
    table.add(["load", "\(Format.number(loadSeconds, 3)) s"])
    table.add(["weights read per token", Format.bytes(weightBytes)])
    table.add([
      "share of read bandwidth",
      "\(Format.number(share * 100, 1)) % of \(Format.number(bandwidth / 1e9, 1)) GB/s",
    ])
    if let peak { table.add(["peak memory", Format.bytes(peak)]) }
    table.add(["threads", "\(Parallel.threads)"])
    table.add(["activations", loaded.activations.rawValue])
    table.add(["keys and values", loaded.cacheType.rawValue])
    try Console.print(table.text)
  }
}
