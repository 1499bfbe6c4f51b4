import Checkpoints
import Foundation
import TestSupport
import Testing
import Text

@Test func quantizeEvaluateAndRunWorkTogether() throws {
  try withTemporaryDirectory { folder in
    let out = "\(folder)/smaller"
    let quantized = try PareProcess.run(
      "quantize", Stories.model, "-o", out, "--bits", "4", "--group-size", "64", "--json")
    #expect(quantized.code == 0, "\(quantized.errors)")
    #expect(quantized.errors.isEmpty)
    let report = try quantized.json()
    // A bf16 scale for each 64 codes, and a shape for each matrix.
    let bits = report["bits_per_compressed_weight"]?.double ?? 0
    #expect(bits > 4.25 && bits < 4.26)
    #expect((report["bits_per_weight"]?.double ?? 0) > bits)
    #expect(report["output"]?.string == out)
    #expect((report["peak_resident_bytes"]?.int ?? 0) > 0)

    let divergence = try PareProcess.run(
      "eval", "divergence", out, "--baseline", Stories.model, "--file", Stories.text, "--json",
      "--cache", folder)
    #expect(divergence.code == 0, "\(divergence.errors)")
    let measured = try divergence.json()
    let kl = try #require(measured["kl_mean"]?.double)
    #expect(kl > 0 && kl < 0.5)
    #expect((measured["same_top"]?.double ?? 0) > 0.7)
    #expect(measured["protocol"]?.string?.isEmpty == false)

    let run = try PareProcess.run(
      "run", out, "--prompt", "Once upon a time", "-n", "12", "--json")
    #expect(run.code == 0, "\(run.errors)")
    let generated = try run.json()
    let ids = try #require(generated["ids"]?.array)
    #expect(ids.count == 12)
    let text = try #require(generated["text"]?.string)
    let plain = try PareProcess.run("run", out, "--prompt", "Once upon a time", "-n", "12")
    #expect(plain.text == "Once upon a time\(text)\n")
  }
}

@Test func perplexityReportsEveryDocumentedKey() throws {
  let result = try PareProcess.run(
    "eval", "perplexity", Stories.model, "--file", Stories.text, "--json", "--window", "128")
  #expect(result.code == 0, "\(result.errors)")
  let json = try result.json()
  for key in ["perplexity", "nll", "nll_standard_error", "tokens", "bits_per_byte"] {
    #expect((json[key]?.double ?? 0) > 0, "\(key)")
  }
  let nll = json["nll"]?.double ?? 0
  #expect(abs((json["perplexity"]?.double ?? 0) - exp(nll)) < 1e-6)
  let table = try PareProcess.run(
    "eval", "perplexity", Stories.model, "--file", Stories.text, "--window", "128")
  #expect(table.text.contains("perplexity"))
  #expect(table.text.contains(json["protocol"]?.string ?? "-"))
}

@Test func documentsAreScoredOneByOne() throws {
  let stream = try PareProcess.run(
    "eval", "perplexity", Stories.model, "--file", Stories.text, "--json", "--bos")
  let documents = try PareProcess.run(
    "eval", "perplexity", Stories.model, "--file", Stories.text, "--json", "--bos", "--documents")
  #expect(documents.code == 0, "\(documents.errors)")
  let (a, b) = (try stream.json(), try documents.json())
  #expect(a["protocol"] != b["protocol"])
  #expect((b["tokens"]?.int ?? 0) < (a["tokens"]?.int ?? 0))
}

@Test func aGateDecidesTheExitCode() throws {
  func run(_ gate: String) throws -> PareProcess {
    try PareProcess.run(
      "eval", "perplexity", Stories.model, "--file", Stories.text, "--window", "64", "--require",
      gate)
  }
  #expect(try run("perplexity<=100000").code == 0)
  let failed = try run("perplexity<=1.0")
  #expect(failed.code == 3)
  #expect(failed.errors.contains("perplexity"))
  #expect(try run("nonsense<=1").code == 64)
  #expect(try run("perplexity").code == 64)
}

@Test func tokenizingAndDecodingAreInverse() throws {
  let text = "Once upon a time, there was a cat."
  let encoded = try PareProcess.run(
    "tokenize", Stories.model, "--text", text, "--no-special-tokens")
  #expect(encoded.code == 0, "\(encoded.errors)")
  let ids = encoded.text.trimmingCharacters(in: .newlines)
  let decoded = try PareProcess.run("tokenize", Stories.model, "--decode", ids)
  #expect(decoded.text == text + "\n")
  let json = try PareProcess.run("tokenize", Stories.model, "--text", text, "--json").json()
  let all = json["ids"]?.array?.compactMap(\.int) ?? []
  #expect(all.map(String.init).joined(separator: ",") == "0," + ids)
  let marked = try PareProcess.run("tokenize", Stories.model, "--decode", "0," + ids)
  #expect(marked.text == "<|endoftext|>" + text + "\n")
  let plain = try PareProcess.run(
    "tokenize", Stories.model, "--decode", "0," + ids, "--no-special-tokens")
  #expect(plain.text == text + "\n")
}

@Test func logitsAreWrittenAsATensor() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/logits.safetensors"
    let result = try PareProcess.run(
      "logits", Stories.model, "--tokens", "5, 6,7", "-o", path)
    #expect(result.code == 0, "\(result.errors)")
    let info = try #require(Checkpoint.open(path).info("logits"))
    #expect(info.shape == [3, 2048])
    #expect(info.dtype == .float32)
    let again = try PareProcess.run("logits", Stories.model, "--tokens", "5", "-o", path)
    #expect(again.code == 1)
    #expect(again.errors.contains(path))
  }
}

@Test func inspectCountsWhatIsStored() throws {
  let json = try PareProcess.run("inspect", Stories.model, "--json", "--tensors").json()
  let roles = json["roles"]?.array ?? []
  #expect(roles.reduce(0) { $0 + ($1["parameters"]?.int ?? 0) } == json["parameters"]?.int)
  let tensors = json["tensors"]?.array ?? []
  #expect(tensors.reduce(0) { $0 + ($1["bytes"]?.int ?? 0) } == json["bytes"]?.int)
  #expect(json["bits_per_weight"]?.double == 16)
  let text = try PareProcess.run("inspect", Stories.model).text
  #expect(text.contains("attention.q"))
}

@Test func aDryRunWritesNothing() throws {
  try withTemporaryDirectory { folder in
    let result = try PareProcess.run(
      "compress", Stories.model, "--recipe", "w4a16", "-o", "\(folder)/out", "--dry-run")
    #expect(result.code == 0, "\(result.errors)")
    #expect(result.text.contains("Nothing was written"))
    #expect(result.text.contains("4 bits g128"))
    try expectOnly([], in: folder)
    let json = try PareProcess.run(
      "compress", Stories.model, "--recipe", "w4a16", "-o", "\(folder)/out", "--dry-run", "--json"
    ).json()
    #expect((json["estimated_seconds"]?.double ?? 0) > 0)
  }
}

@Test func aRecipesMistakeEndsWithItsLine() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/recipe.yaml"
    try "stages:\n  - quantize:\n      bits: 4\n      grup_size: 64\n".write(
      toFile: path, atomically: false, encoding: .utf8)
    let result = try PareProcess.run(
      "compress", Stories.model, "--recipe", path, "-o", "\(folder)/out")
    #expect(result.code == 1)
    #expect(result.errors.contains("line 4"))
    #expect(result.errors.contains("grup_size"))
    try expectOnly(["recipe.yaml"], in: folder)
  }
}

@Test func theDemoShowsFiveRowsAndKeepsNothing() throws {
  let result = try PareProcess.run("demo", "--json")
  #expect(result.code == 0, "\(result.errors)")
  let rows = try #require(try result.json().array)
  #expect(
    rows.compactMap { $0["name"]?.string } == [
      "original", "8 bits", "4 bits", "3 bits", "2 bits",
    ])
  let bytes = rows.compactMap { $0["bytes"]?.int }
  #expect(bytes == bytes.sorted(by: >))
  let kls = rows.compactMap { $0["kl_mean"]?.double }
  #expect(kls == kls.sorted())
  #expect(rows.allSatisfy { ($0["text"]?.string?.count ?? 0) > 40 })
}

@Test(arguments: [
  [], ["inspect"], ["tokenize"], ["logits"], ["quantize"], ["compress"], ["eval"],
  ["eval", "perplexity"], ["eval", "divergence"], ["train"], ["finetune"], ["run"], ["chat"],
  ["demo"],
])
func helpTeachesByExample(command: [String]) throws {
  let result = try PareProcess.run(command + ["--help"])
  #expect(result.code == 0)
  if command != ["eval"] { #expect(result.text.contains("pare " + command.joined(separator: " "))) }
  for line in result.text.split(separator: "\n") where !line.hasPrefix("USAGE") {
    #expect(line.count <= 110, "\(line)")
  }
}

@Test func aModelGoesToGGUFAndBackAndServesEveryCommand() throws {
  try withTemporaryDirectory { folder in
    let file = "\(folder)/model.gguf"
    let plan = try PareProcess.run(
      "convert", Stories.model, "--to", "gguf", "--type", "q4_k_m", "-o", file, "--dry-run")
    #expect(plan.code == 0 && plan.text.contains("token_embd.weight"), "\(plan.errors)")
    try expectOnly([], in: folder)
    let converted = try PareProcess.run(
      "convert", Stories.model, "--to", "gguf", "--type", "q8_0", "-o", file, "--json")
    #expect(converted.code == 0 && converted.errors.isEmpty, "\(converted.errors)")
    let report = try converted.json()
    #expect(report["format"]?.string == "gguf" && report["type"]?.string == "q8_0")
    #expect(abs((report["bits_per_weight"]?.double ?? 0) - 8.51) < 0.05)
    #expect((report["seconds"]?.double ?? 0) > 0)
    let again = try PareProcess.run(
      "convert", Stories.model, "--to", "gguf", "--type", "q8_0", "-o", file)
    #expect(again.code == 1 && again.errors.contains("--overwrite"))

    for arguments in [
      ["inspect", file], ["tokenize", file, "--text", "Once"],
      ["run", file, "--prompt", "Once upon a time", "-n", "4"],
      ["logits", file, "--tokens", "1,2,3", "-o", "\(folder)/logits.safetensors"],
      ["eval", "perplexity", file, "--file", Stories.text, "--window", "128"],
    ] {
      let result = try PareProcess.run(arguments)
      #expect(result.code == 0, "\(arguments[0]): \(result.errors)")
    }
    let quantized = try PareProcess.run("quantize", file, "-o", "\(folder)/smaller")
    #expect(quantized.code == 1 && quantized.errors.contains("already quantized"))
    let divergence = try PareProcess.run(
      "eval", "divergence", file, "--baseline", Stories.model, "--file", Stories.text, "--json")
    #expect((try divergence.json()["kl_mean"]?.double ?? 1) < 0.01)

    let back = "\(folder)/back"
    let opened = try PareProcess.run("convert", file, "--to", "hf", "--dtype", "bf16", "-o", back)
    #expect(opened.code == 0, "\(opened.errors)")
    try expectOnly(
      [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
      ], in: back)
    let dense = "\(folder)/dense.gguf"
    #expect(
      try PareProcess.run("convert", back, "--to", "gguf", "--type", "bf16", "-o", dense).code == 0)
    let smaller = try PareProcess.run("quantize", dense, "-o", "\(folder)/smaller")
    #expect(smaller.code == 0, "\(smaller.errors)")
    #expect(
      try PareProcess.run("run", "\(folder)/smaller", "--prompt", "Once", "-n", "4").code == 0)
  }
}

@Test func codesOfADenseModelCannotBeKept() throws {
  for target in ["gguf", "gptq", "awq", "compressed-tensors"] {
    let result = try PareProcess.run(
      "convert", Stories.model, "-o", "/nowhere/out", "--to", target)
    #expect(result.code == 1 && result.errors.contains("no quantized matrix"), "\(target)")
  }
}

@Test func contradictionsOfAConversionAreWrongUsage() throws {
  for arguments in [
    ["--to", "hf", "--requantize"], ["--to", "gguf", "--type", "q9"],
    ["--to", "hf", "--type", "q8_0"],
    ["--to", "gguf", "--type", "q8_0", "--dtype", "bf16"], ["--to", "onnx"],
  ] {
    let result = try PareProcess.run(
      ["convert", Stories.model, "-o", "/nowhere/out"] + arguments)
    #expect(result.code == 64, "\(arguments)")
  }
}
