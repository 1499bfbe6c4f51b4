import ArgumentParser
import Runtime

/// How the next token is chosen, but for the temperature, whose default commands set themselves.
struct SamplingOptions: ParsableArguments {
  @Option(help: "Sample among the k most probable tokens; 0 takes all.")
  var topK = 0

  @Option(help: "Sample among the fewest tokens that have this probability together.")
  var topP: Float = 1

  @Option(help: "Leave out tokens below this share of the most probable one's probability.")
  var minP: Float = 0

  @Option(help: "Seed of the sampling.")
  var seed: UInt64 = 0

  @Option(
    help: ArgumentHelp(
      "Divide a positive logit of a token that occurred, multiply a negative one; 1 is off.",
      valueName: "factor"))
  var repetitionPenalty: Float = 1

  @Option(
    help: ArgumentHelp("Subtract from the logit of every token that occurred.", valueName: "amount")
  )
  var presencePenalty: Float = 0

  @Option(
    help: ArgumentHelp("Subtract from a token's logit for each occurrence.", valueName: "amount"))
  var frequencyPenalty: Float = 0

  @Option(
    help: ArgumentHelp(
      "Last tokens that the penalties look at, the prompt's included; -1 for all.", valueName: "n"))
  var repeatLastN = 64

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "End before this text. May be repeated.", valueName: "text"))
  var stop: [String] = []

  func settings(temperature: Float, seed: UInt64? = nil) -> Sampler.Settings {
    Sampler.Settings(
      temperature: temperature, topK: topK, topP: topP, minP: minP, seed: seed ?? self.seed,
      penalties: Penalties(
        repetition: repetitionPenalty, presence: presencePenalty, frequency: frequencyPenalty,
        lastTokens: repeatLastN))
  }

  var stops: [[UInt8]] { stop.map { Array($0.utf8) } }

  func validate() throws {
    if topK < 0 { throw ValidationError("--top-k must be 0 or more.") }
    if !(topP > 0 && topP <= 1) { throw ValidationError("--top-p must be above 0, at most 1.") }
    if !(minP >= 0 && minP <= 1) { throw ValidationError("--min-p must be between 0 and 1.") }
    if !(repetitionPenalty > 0 && repetitionPenalty.isFinite) {
      throw ValidationError("--repetition-penalty must be above 0.")
    }
    if !(presencePenalty.isFinite && frequencyPenalty.isFinite) {
      throw ValidationError("--presence-penalty and --frequency-penalty must be numbers.")
    }
    if repeatLastN < -1 { throw ValidationError("--repeat-last-n must be -1 or more.") }
    if stop.contains("") { throw ValidationError("--stop must not be empty.") }
  }
}

enum Temperature {
  static func check(_ temperature: Float) throws {
    if !(temperature >= 0 && temperature.isFinite) {
      throw ValidationError("--temperature must be 0 or more.")
    }
  }
}
