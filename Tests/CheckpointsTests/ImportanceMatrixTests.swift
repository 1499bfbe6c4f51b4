import Checkpoints
import Foundation
import TestSupport
import Testing

private let matrix = ImportanceMatrix(
  entries: [
    "blk.0.attn_q.weight": .init(sums: [4, 0, 9.5], counts: [8]),
    "blk.0.ffn_down.weight": .init(sums: [1, 2], counts: [4]),
    "blk.1.ffn_up_exps.weight": .init(sums: [1, 2, 3, 4, 5, 6], counts: [2, 0]),
  ], datasets: ["first.txt", "text ü.txt"], chunkCount: 3, chunkSize: 4)

private func written(
  _ matrix: ImportanceMatrix, _ format: ImportanceMatrix.Format, in folder: String
)
  throws -> String
{
  let path = "\(folder)/importance"
  try matrix.write(to: path, format: format)
  return path
}

@Test func importanceInAGGUFFileIsReadBackUnchanged() throws {
  try withTemporaryDirectory { folder in
    let read = try ImportanceMatrix(path: written(matrix, .gguf, in: folder))
    #expect(read == matrix)
  }
}

@Test func importanceInTheFormerFormatKeepsItsMeans() throws {
  try withTemporaryDirectory { folder in
    let read = try ImportanceMatrix(path: written(matrix, .dat, in: folder))
    #expect(read.datasets == ["text ü.txt"] && read.chunkCount == 3)
    for name in ["blk.0.attn_q.weight", "blk.0.ffn_down.weight"] {
      #expect(read.meanSquares(name) == matrix.meanSquares(name))
    }
    // Eight tokens in chunks of four are two calls; an expert that nothing reached counts as 1.
    #expect(read.entries["blk.0.attn_q.weight"]?.counts == [2])
    #expect(read.entries["blk.1.ffn_up_exps.weight"]?.sums == [0.5, 1, 1.5, 1, 1, 1])
    #expect(matrix.meanSquares("blk.0.attn_q.weight") == [0.5, 0, 1.1875])
    #expect(matrix.meanSquares("blk.1.ffn_up_exps.weight") == nil)
  }
}

@Test func theOldestImportanceFilesEndAfterTheirEntries() throws {
  try withTemporaryDirectory { folder in
    let path = try written(matrix, .dat, in: folder)
    var bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
    bytes.removeLast(4 + 4 + "text ü.txt".utf8.count)
    try Data(bytes).write(to: URL(filePath: path))
    let read = try ImportanceMatrix(path: path)
    #expect(read.entries.count == 3 && read.datasets.isEmpty && read.chunkCount == 0)
  }
}

@Test func damagedImportanceIsRefused() throws {
  try withTemporaryDirectory { folder in
    for format in ImportanceMatrix.Format.allCases {
      let path = try written(matrix, format, in: folder)
      let bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
      // The former format may end after its entries; within them every cut is seen.
      for length in stride(from: 0, to: bytes.count - 40, by: 7) {
        try Data(bytes[..<length]).write(to: URL(filePath: path))
        #expect(throws: CheckpointError.self) { try ImportanceMatrix(path: path) }
      }
    }
    var wrong = matrix
    wrong.entries["blk.0.attn_q.weight"]?.sums[1] = -.infinity
    let path = try written(wrong, .gguf, in: folder)
    #expect(throws: CheckpointError.self) { try ImportanceMatrix(path: path) }
    let other = try written(ImportanceMatrix(), .gguf, in: folder)
    #expect(throws: CheckpointError.self) { try ImportanceMatrix(path: other) }
  }
}
