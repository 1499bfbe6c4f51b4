import Checkpoints
import Foundation
import TestSupport
import Testing
import Text

@Test func measuredImportanceWeighsAConversion() throws {
  try withTemporaryDirectory { folder in
    let file = "\(folder)/imatrix.gguf"
    let measured = try PareProcess.run(
      "imatrix", Stories.model, "--file", Stories.text, "--samples", "2", "--length", "32", "-o",
      file, "--json")
    #expect(measured.code == 0, "\(measured.errors)")
    let json = try measured.json()
    #expect(json["samples"]?.int == 2 && json["tokens"]?.int == 64)
    #expect(json["output"]?.string == file && (json["entries"]?.int ?? 0) > 7)
    #expect((json["distinct_tokens"]?.int ?? 0) > 10)

    let model = "\(folder)/model.gguf"
    let converted = try PareProcess.run(
      "convert", Stories.model, "--to", "gguf", "--type", "q4_0", "--imatrix", file, "-o", model,
      "--json")
    #expect(converted.code == 0, "\(converted.errors)")
    #expect(try Checkpoint.open(model).gguf?["quantize.imatrix.file"]?.string == "imatrix.gguf")
    try expectOnly(["imatrix.gguf", "model.gguf"], in: folder)
  }
}

@Test func importanceThatDoesNotCoverTheModelIsRefusedByName() throws {
  try withTemporaryDirectory { folder in
    let file = "\(folder)/imatrix.dat"
    try ImportanceMatrix(
      entries: ["blk.0.attn_q.weight": .init(sums: .init(repeating: 1, count: 256), counts: [1])]
    ).write(to: file, format: .dat)
    let arguments = [
      "convert", Stories.model, "--to", "gguf", "--type", "q4_0", "--imatrix", file, "-o",
      "\(folder)/model.gguf",
    ]
    let refused = try PareProcess.run(arguments)
    #expect(refused.code == 1 && refused.errors.contains("blk.0.attn_k.weight"))
    #expect(refused.errors.contains("--imatrix-missing ignore"))
    try expectOnly(["imatrix.dat"], in: folder)
    #expect(try PareProcess.run(arguments + ["--imatrix-missing", "ignore"]).code == 0)
  }
}
