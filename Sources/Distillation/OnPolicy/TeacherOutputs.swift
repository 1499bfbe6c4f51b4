package import Models
import Text
package import Tokenizers
package import Training

/// A teacher's outputs for prompts of a data set, written once and learned by any number of
/// students: distillation on the level of sequences (Kim and Rush 2016, arXiv:1606.07947).
package struct TeacherOutputs {
  private let sampler: ContinuationSampler
  private let seed: UInt64

  /// - Throws: `badSetting`.
  package init(
    teacher: LanguageModel, settings: ContinuationSettings, seed: UInt64
  ) throws(DistillationError) {
    try settings.validate()
    sampler = ContinuationSampler(teacher, settings)
    self.seed = seed
  }

  /// One output for each prompt of the stream's batches, until the stream or `count` ends.
  ///
  /// - Parameters:
  ///   - stream: passed from where it stands; endless ones end with `count`.
  ///   - consume: sees the outputs of one batch; returning false ends.
  package func forEach(
    in stream: TrainingStream, count: Int, _ consume: ([TrainingExample]) throws -> Bool
  ) throws {
    var stream = stream
    var done = 0
    var number = 0
    var barren = 0
    while done < count, let batch = try stream.next() {
      let prompts = batch.prompts(sampler.settings, longest: sampler.longestPrompt)
        .prefix(count - done)
      // An endless stream without a single prompt would never end.
      barren = prompts.isEmpty ? barren + 1 : 0
      if barren > 1000 { break }
      var place = StepPlace()
      place.advance(to: number)
      let outputs = try sampler.continuations(
        of: Array(prompts), seeds: place.seeds(seed, count: prompts.count))
      number += 1
      done += outputs.count
      if try !consume(outputs) { break }
    }
  }

  /// A line of a JSON Lines file that trainings read: `{"prompt": …, "response": …}` for an
  /// instruction, `{"text": …}` for a text that was continued. A prompt is what
  /// the model read, with the words of a chat template, so the file is to be read without one.
  /// Reading it, a tokenizer may cut words otherwise than the teacher did.
  package static func line(
    _ output: TrainingExample, isInstruction: Bool, _ tokenizer: Tokenizer
  ) throws -> [UInt8] {
    let record: JSON
    if isInstruction {
      let prompt = output.prompt
      record = [
        "prompt": .string(try tokenizer.decode(Array(prompt))),
        "response": .string(try tokenizer.decode(Array(output.tokens[prompt.count...]))),
      ]
    } else {
      record = ["text": .string(try tokenizer.decode(output.tokens))]
    }
    return record.serialized() + [UInt8(ascii: "\n")]
  }
}
