import Checkpoints
import Foundation
import Models
import Recipes
import Tensors
import TestSupport
import Testing

/// A model with room for blocks of 32, and its tokenizer.
private let model = SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources/stories")
  .path
private let text = SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources/held-out.txt")

private func measured() throws -> ImportanceMatrix {
  var run = ImportanceRun(model: model, dataset: "held-out.txt")
  (run.samples, run.length) = (2, 16)
  return try run.run(text: [UInt8](try Data(contentsOf: text))).matrix
}

@Test func measuredImportanceCoversEveryMatrixAndChangesWhatIsWritten() throws {
  let matrix = try measured()
  #expect(matrix.datasets == ["held-out.txt"] && matrix.chunkCount == 2 && matrix.chunkSize == 16)
  try withTemporaryDirectory { folder in
    func write(_ importance: ImportanceSource?, _ name: String) throws -> (Data, ConversionReport) {
      let report = try GGUFConversion(model: model, mix: .q3_k_s, importance: importance)
        .run(output: "\(folder)/\(name).gguf", overwrite: false, onProgress: { _ in })
      return (try Data(contentsOf: URL(filePath: "\(folder)/\(name).gguf")), report)
    }
    let weighted = try write(ImportanceSource(matrix, name: "imatrix.gguf"), "weighted")
    let plain = try write(nil, "plain")
    #expect(weighted.0.count != plain.0.count || weighted.0 != plain.0)
    #expect(
      weighted.1.plan.notes.contains { $0.contains("imatrix.gguf, of held-out.txt, 2 texts") })
    let file = try Checkpoint.open("\(folder)/weighted.gguf")
    #expect(file.gguf?["quantize.imatrix.dataset"]?.string == "held-out.txt")
    #expect(file.gguf?["quantize.imatrix.chunks_count"]?.int == 2)
    // Unweighted, the plain squared error is the smaller one.
    func error(_ report: ConversionReport) -> Double {
      report.errors.compactMap { $0?.squaredError }.reduce(0, +)
    }
    #expect(error(plain.1) <= error(weighted.1))
  }
}

@Test func matricesWithoutImportanceAreListedAndRefusedUnlessIgnored() throws {
  var matrix = try measured()
  matrix.entries["blk.1.ffn_up.weight"] = nil
  matrix.entries["blk.2.attn_k.weight"]?.counts = [0]
  let error = #expect(throws: ImportanceError.self) {
    try GGUFConversion(
      model: model, mix: .q4_0, importance: ImportanceSource(matrix, name: "imatrix.gguf"))
  }
  #expect(
    error == .missing(["blk.1.ffn_up.weight", "blk.2.attn_k.weight"], file: "imatrix.gguf"))
  let plan = try GGUFConversion(
    model: model, mix: .q4_0,
    importance: ImportanceSource(matrix, name: "imatrix.gguf", missing: .ignore)
  ).plan
  let unweighted = plan.rows.filter { $0.note?.contains("no importance") ?? false }.map(\.name)
  #expect(unweighted == ["blk.1.ffn_up.weight", "blk.2.attn_k.weight"])
  // Types whose rule leaves no choice need none.
  _ = try GGUFConversion(
    model: model, mix: .q8_0, importance: ImportanceSource(matrix, name: "imatrix.gguf"))
}

@Test func importanceOfAnotherModelIsRefused() throws {
  var matrix = try measured()
  matrix.entries["blk.0.ffn_down.weight"] = .init(sums: [1, 2, 3], counts: [1])
  #expect(throws: ImportanceError.self) {
    try GGUFConversion(
      model: model, mix: .q4_0,
      importance: ImportanceSource(matrix, name: "imatrix.gguf", missing: .ignore))
  }
}

@Test func tooLittleTextIsRefused() {
  #expect(throws: ImportanceError.self) {
    _ = try ImportanceRun(model: model, dataset: "a").run(text: Array("Once upon a time".utf8))
  }
}
