import Foundation
import TestSupport
import Testing
import Text

/// A short text and the arguments that teach a tiny student of the stories' model on it.
private struct Lesson {
  let folder: String

  static func with(_ body: (Lesson) throws -> Void) throws {
    try withTemporaryDirectory { folder in
      let stories = try String(contentsOfFile: Stories.text, encoding: .utf8)
      try Data(stories.prefix(6000).utf8).write(to: URL(filePath: "\(folder)/data.txt"))
      try body(Lesson(folder: folder))
    }
  }

  static let shape = "layers=2,hidden=32,heads=4,keyValueHeads=2,intermediate=64"

  func arguments(
    _ output: String, student: [String] = ["--student-shape", shape], steps: Int = 3,
    _ more: [String] = []
  ) -> [String] {
    ["distill", "--teacher", Stories.model] + student + [
      "--data", "\(folder)/data.txt", "--separator", "\\n\\n", "--steps", "\(steps)",
      "--batch-size", "2", "--length", "24", "--max-new-tokens", "6", "--prompt-tokens", "4", "-o",
      "\(folder)/\(output)",
    ] + more
  }

  func bytes(_ output: String) throws -> Data {
    try Data(contentsOf: URL(filePath: "\(folder)/\(output)/model.safetensors"))
  }
}

struct DistillCommandTests {
  @Test(arguments: [
    "labels", "soft", "taid", "hidden", "fitnets", "mobilebert", "distilbert", "minilm",
    "minilm-v2", "rkd-distance", "rkd-angle", "rkd-tokens", "uld", "sequence", "gkd", "minillm",
    "distillm", "ema", "exits",
  ])
  func everyMethodTrainsAStudent(method: String) throws {
    try Lesson.with { lesson in
      let result = try PareProcess.run(
        lesson.arguments("out", ["--method", method, "--json", "--validation", "0.2"]))
      #expect(result.code == 0, "\(result.errors)")
      let json = try result.json()
      for key in [
        "loss", "held_out_loss", "tokens_per_second", "peak_resident_bytes", "method", "losses",
        "vocabularies", "teacher_sha256",
      ] { #expect(json[key] != nil, "\(key)") }
      #expect(json["loss"]?.double?.isFinite ?? false)
      let run = try PareProcess.run("inspect", "\(lesson.folder)/out", "--json")
      #expect(run.code == 0)
    }
  }

  @Test func severalTeachersCachesAndGenerationsTrainToo() throws {
    try Lesson.with { lesson in
      let several = try PareProcess.run(
        lesson.arguments(
          "several", ["--teacher", Stories.model, "--weighting", "entropy"]))
      #expect(several.code == 0, "\(several.errors)")
      let cache = "\(lesson.folder)/teacher.cache"
      for output in ["made", "read"] {
        let result = try PareProcess.run(
          lesson.arguments(output, ["--teacher-cache", cache, "--cache-top", "16"]))
        #expect(result.code == 0, "\(result.errors)")
      }
      #expect(try lesson.bytes("made") == lesson.bytes("read"))
      var means: [Double] = []
      for _ in 0..<2 {
        let compared = try PareProcess.run(
          "eval", "divergence", "\(lesson.folder)/made", "--baseline", Stories.model, "--file",
          "\(lesson.folder)/data.txt", "--separator", "\n\n", "--window", "64", "--teacher-cache",
          "\(lesson.folder)/text.top", "--json")
        #expect(compared.code == 0, "\(compared.errors)")
        means.append(try #require(try compared.json()["kl_topk_mean"]?.double))
      }
      #expect(means[0] == means[1] && means[0] > 0)
      let chain = try PareProcess.run(
        lesson.arguments("chain", ["--method", "born-again", "--generations", "2", "--json"]))
      #expect(chain.code == 0, "\(chain.errors)")
      // One report: the last generation's.
      #expect(try chain.json()["output"]?.string == "\(lesson.folder)/chain")
      #expect(
        FileManager.default.fileExists(atPath: "\(lesson.folder)/chain.generations/generation-1"))
      // A cache of the same teacher for other data.
      try Data("A bird sang. A cat slept.".utf8)
        .write(to: URL(filePath: "\(lesson.folder)/data.txt"))
      let foreign = try PareProcess.run(
        lesson.arguments("foreign", ["--teacher-cache", cache, "--cache-top", "16"]))
      #expect(foreign.code == 1)
      #expect(foreign.errors.contains("was made with another"))
    }
  }

  @Test func stoppedRunsGoOnToTheSameBytes() throws {
    try Lesson.with { lesson in
      let more = ["--method", "distillm", "--checkpoint-every", "2", "--keep-checkpoints"]
      #expect(try PareProcess.run(lesson.arguments("whole", steps: 5, more)).code == 0)
      #expect(try PareProcess.run(lesson.arguments("parts", steps: 5, more)).code == 0)
      // As if it had been killed after step 4.
      let files = FileManager.default
      try files.removeItem(atPath: "\(lesson.folder)/parts")
      try files.removeItem(atPath: "\(lesson.folder)/parts.training/checkpoint-5")
      let resumed = try PareProcess.run(
        lesson.arguments("parts", steps: 5, more + ["--resume", "--json"]))
      #expect(resumed.code == 0, "\(resumed.errors)")
      #expect(try resumed.json()["resumed_from"]?.int == 4)
      #expect(try lesson.bytes("whole") == lesson.bytes("parts"))
    }
  }

  @Test func recipesCutQuantizeAndDistillInTurn() throws {
    try Lesson.with { lesson in
      let recipe = """
        name: small
        stages:
          - cut: {shape: "layers=2", layers: importance, data: \(lesson.folder)/data.txt}
          - distill: {data: \(lesson.folder)/data.txt, steps: 2, batch_size: 2, length: 24,
                      losses: [{labels: {weight: 0.5}}, {soft: {T: 2, weight: 0.5}}]}
          - quantize: {bits: 3, group_size: 32}
          - distill: {data: \(lesson.folder)/data.txt, steps: 2, batch_size: 2, length: 24}
        """
      try Data(recipe.utf8).write(to: URL(filePath: "\(lesson.folder)/recipe.yaml"))
      let result = try PareProcess.run(
        "compress", Stories.model, "--recipe", "\(lesson.folder)/recipe.yaml", "-o",
        "\(lesson.folder)/out", "--json")
      #expect(result.code == 0, "\(result.errors)")
      #expect(try result.json()["stages"]?.array?.count == 4)
      let model = try PareProcess.run("inspect", "\(lesson.folder)/out", "--json")
      #expect(model.code == 0)
      try expectOnly(["data.txt", "out", "recipe.yaml"], in: lesson.folder)
    }
  }

  @Test func badInputIsRefusedInOneSentence() throws {
    try Lesson.with { lesson in
      let files = FileManager.default
      // A student whose tokens are others.
      let other = "\(lesson.folder)/other"
      try Stories.copy(to: other)
      let path = URL(filePath: "\(other)/tokenizer.json")
      let text = try String(contentsOf: path, encoding: .utf8)
      let changed = text.replacingOccurrences(of: "\"q\": ", with: "\"\u{0}\": ")
        .replacingOccurrences(of: "\"z\": ", with: "\"q\": ")
        .replacingOccurrences(of: "\"\u{0}\": ", with: "\"z\": ")
      #expect(changed != text)
      try Data(changed.utf8).write(to: path)
      let cases: [([String], Int32, String)] = [
        (lesson.arguments("out", student: ["--student", other]), 1, "different vocabularies"),
        (lesson.arguments("out", ["--length", "600"]), 1, "context length"),
        (lesson.arguments("out", student: []), 64, "who learns"),
        (lesson.arguments("out", ["--method", "osmosis"]), 64, "--method is one of"),
        (lesson.arguments("out", ["--losses", "[{hidden: {layers: [[0, 9]]}}]"]), 1, "layer 9"),
        (lesson.arguments("out", ["--losses", "[{soft: {temp: 2}}]"]), 1, "temp"),
        (lesson.arguments("out", student: ["--student-shape", "layers=x"]), 1, "layers"),
        (lesson.arguments("out", ["--memory-limit", "40MB"]), 1, "memory-limit"),
        (
          lesson.arguments("out", ["--method", "gkd", "--teacher-cache", "\(lesson.folder)/c"]), 1,
          "--teacher-cache"
        ),
        (
          lesson.arguments(
            "out", ["--learning-rate", "1e30", "--clip-norm", "0", "--optimizer", "sgd"]),
          1, "not finite"
        ),
      ]
      for (arguments, code, word) in cases {
        let result = try PareProcess.run(arguments)
        #expect(result.code == code, "\(arguments)\n\(result.errors)")
        #expect(result.errors.contains(word), "\(result.errors)")
        #expect(!files.fileExists(atPath: "\(lesson.folder)/out"))
        try? files.removeItem(atPath: "\(lesson.folder)/out.training")
      }
    }
  }
}
