/// How strongly each input column of each matrix is driven: the sums of squares of what reaches it,
/// as llama.cpp's `imatrix` files keep them, under GGUF's names (`blk.0.attn_q.weight`).
///
/// A quantization that weighs the squared error of column j by the mean square of its input minimizes
/// the expected squared error of the product, as far as inputs are uncorrelated.
public struct ImportanceMatrix: Sendable, Equatable {
  /// What was summed for one tensor.
  public struct Entry: Sendable, Equatable {
    /// Sums of squares of the inputs, `[parts, inputs]`; a tensor of several experts has a part each.
    public var sums: [Float]
    /// What each part's sums are divided by: the number of inputs that reached it.
    public var counts: [Float]

    public init(sums: [Float], counts: [Float]) {
      self.sums = sums
      self.counts = counts
    }

    /// Columns of the matrix.
    public var inputs: Int { counts.isEmpty ? 0 : sums.count / counts.count }

    /// The mean square of each column's input; nil where nothing was seen, or for several experts.
    public var meanSquares: [Float]? {
      guard counts.count == 1, counts[0] > 0 else { return nil }
      return sums.map { Float(Double($0) / Double(counts[0])) }
    }
  }

  public enum Format: String, Sendable, CaseIterable {
    /// What llama.cpp writes now.
    case gguf
    /// What it wrote before, and still reads.
    case dat
  }

  /// By the tensor's name in a GGUF file.
  public var entries: [String: Entry]
  /// What the inputs were computed from.
  public var datasets: [String]
  /// Texts that were read, and tokens of each; 0 where a file does not say.
  public var chunkCount: Int
  public var chunkSize: Int

  public init(
    entries: [String: Entry] = [:], datasets: [String] = [], chunkCount: Int = 0,
    chunkSize: Int = 0
  ) {
    self.entries = entries
    self.datasets = datasets
    self.chunkCount = chunkCount
    self.chunkSize = chunkSize
  }

  /// The mean square of the inputs of a tensor; nil where there is no data for it.
  public func meanSquares(_ tensor: String) -> [Float]? { entries[tensor]?.meanSquares }

  /// Names in byte order, the order of every file.
  var names: [String] { entries.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }
}
