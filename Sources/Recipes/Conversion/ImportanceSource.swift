public import Checkpoints

/// An importance matrix for a conversion, and what happens to matrices that it says nothing of.
public struct ImportanceSource: Sendable {
  public enum Missing: String, Sendable, CaseIterable {
    /// They are listed, and nothing is written.
    case refuse
    /// They are fitted unweighted, and the plan says so.
    case ignore
  }

  public let matrix: ImportanceMatrix
  /// What the file is called.
  public let name: String
  public var missing: Missing

  /// - Throws: `CheckpointError`.
  public init(path: String, missing: Missing = .refuse) throws(CheckpointError) {
    matrix = try ImportanceMatrix(path: path)
    name = path.split(separator: "/").last.map(String.init) ?? path
    self.missing = missing
  }

  public init(_ matrix: ImportanceMatrix, name: String, missing: Missing = .refuse) {
    self.matrix = matrix
    self.name = name
    self.missing = missing
  }

  /// What the plan says of it.
  var notes: [String] {
    let data = matrix.datasets.isEmpty ? "" : ", of \(matrix.datasets.joined(separator: ", "))"
    let chunks = matrix.chunkCount > 0 ? ", \(matrix.chunkCount) texts" : ""
    return ["errors are weighted by the importance in \(name)\(data)\(chunks)"]
  }

  /// The keys by which llama.cpp remembers what a file was weighted by.
  func describe(_ metadata: inout GGUFMetadata) {
    metadata.set("quantize.imatrix.file", name)
    if let data = matrix.datasets.last { metadata.set("quantize.imatrix.dataset", data) }
    metadata.set("quantize.imatrix.entries_count", matrix.entries.count)
    metadata.set("quantize.imatrix.chunks_count", matrix.chunkCount)
  }
}

/// Why an importance matrix does not serve a conversion.
public enum ImportanceError: Error, Equatable, Sendable, CustomStringConvertible {
  case missing([String], file: String)
  case wrongColumns(tensor: String, columns: Int, found: Int, file: String)
  case noText(needed: Int, found: Int)
  case noNames(modelType: String)

  public var description: String {
    switch self {
    case .missing(let names, let file):
      "\(file) has no data for \(names.count == 1 ? "a matrix" : "\(names.count) matrices"): "
        + names.joined(separator: ", ")
        + ". Make one with pare imatrix, or fit these unweighted with --imatrix-missing ignore."
    case .wrongColumns(let tensor, let columns, let found, let file):
      "\(file) is of another model: \(tensor) has \(columns) columns there are \(found) values for."
    case .noText(let needed, let found):
      "the text has \(found) tokens, too few for \(needed); give a longer one or lower --length."
    case .noNames(let modelType):
      "GGUF has no names for the matrices of \(modelType), and an importance matrix is kept under those."
    }
  }
}
