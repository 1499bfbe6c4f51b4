import Checkpoints
public import Codecs
import Models
import Tensors
public import Text

/// A model carried over into another file format.
public protocol Conversion {
  /// What will be written, row by row; nothing has been yet.
  var plan: ConversionPlan { get }

  /// Writes tensor by tensor, reopens the result, compares every tensor with what was in memory, and
  /// only then lets it appear under its name.
  func run(
    output: String, overwrite: Bool, onProgress: (Compression.Progress) throws -> Void
  ) throws -> ConversionReport
}

public struct ConversionPlan: Sendable {
  public struct Row: Sendable {
    /// The name in the output.
    public var name: String
    /// The name in the input; nil for what is made.
    public var source: String?
    public var shape: [Int]
    /// Element or block types.
    public var from: String
    public var to: String
    public var bytesBefore: Int
    public var bytesAfter: Int
    public var note: String?
  }

  public var model: String
  public var modelType: String
  /// `gguf` or `hf`.
  public var format: String
  /// The mix, or the element type.
  public var type: String
  public var rows: [Row]
  /// What another engine would do differently with the result.
  public var notes: [String]

  public var bytesBefore: Int { rows.reduce(0) { $0 + $1.bytesBefore } }
  public var bytesAfter: Int { rows.reduce(0) { $0 + $1.bytesAfter } }
  public var parameters: Int {
    rows.reduce(0) { $0 + ($1.source == nil ? 0 : $1.shape.reduce(1, *)) }
  }
  public var bitsPerWeight: Double { Double(bytesAfter) * 8 / Double(max(parameters, 1)) }
}

public struct ConversionReport: Sendable {
  public var plan: ConversionPlan
  /// For each row how far the stored numbers lie from the original ones; nil where they are equal
  /// or only rounded.
  public var errors: [EncodingError?]
  public var output = ""
  public var seconds = 0.0
  public var peakResidentBytes: Int?
  public var notes: [String] = []
}

extension ConversionPlan {
  public var json: JSON { .object(JSONObject(fields(errors: []))) }

  fileprivate func fields(errors: [EncodingError?]) -> [(String, JSON)] {
    let list = rows.enumerated().map { index, row -> JSON in
      var fields: [(String, JSON)] = [
        ("name", JSON(row.name)), ("source", row.source.map { JSON($0) } ?? .null),
        ("shape", .array(row.shape.map { JSON($0) })), ("from", JSON(row.from)),
        ("type", JSON(row.to)), ("bytes_before", JSON(row.bytesBefore)),
        ("bytes", JSON(row.bytesAfter)),
      ]
      if errors.indices.contains(index), let error = errors[index] {
        fields.append(("relative_error", JSON(error.relativeError)))
      }
      if let note = row.note { fields.append(("note", JSON(note))) }
      return .object(JSONObject(fields))
    }
    return [
      ("model", JSON(model)), ("model_type", JSON(modelType)), ("format", JSON(format)),
      ("type", JSON(type)), ("parameters", JSON(parameters)), ("bytes_before", JSON(bytesBefore)),
      ("bytes", JSON(bytesAfter)), ("bits_per_weight", JSON(bitsPerWeight)),
      ("notes", .array(notes.map { JSON($0) })), ("tensors", .array(list)),
    ]
  }
}

extension ConversionReport {
  public var json: JSON {
    let timings: [(String, JSON)] = [
      ("output", JSON(output)), ("seconds", JSON(seconds)),
      ("peak_resident_bytes", peakResidentBytes.map { JSON($0) } ?? .null),
    ]
    return .object(JSONObject(timings + plan.fields(errors: errors)))
  }
}

/// Rows of a matrix in pieces, so that no matrix need be in memory as a whole.
struct MatrixReader {
  let weight: any Weight

  /// Weights of a piece, 16 MB of float32.
  private static let pieceWeights = 1 << 22

  /// - Parameter tensor: a matrix; one stored `[in, out]` is turned as a whole.
  init(_ tensor: ModelTensor, in source: WeightSource) throws {
    let stored = try source.matrix(tensor)
    weight =
      (stored as? TransposedWeight).map {
        DenseWeight($0.tensor.transposed().converted(to: $0.tensor.dtype))
      } ?? stored
  }

  /// - Parameter body: is given rows in order, in their stored type where that is plain.
  func forEachPiece(_ body: (Tensor) throws -> Void) throws {
    let size = max(1, Self.pieceWeights / max(weight.inputs, 1))
    for start in stride(from: 0, to: weight.outputs, by: size) {
      let range = start..<min(start + size, weight.outputs)
      if let dense = weight as? DenseWeight {
        let rows = dense.tensor.rows(range)
        try body(rows)
        rows.giveBack()
        continue
      }
      try body(
        Tensor(shape: [range.count, weight.inputs]) { target in
          guard let base = target.baseAddress else { return }
          weight.dequantizeRows(range, into: base)
        })
    }
    weight.giveBack()
  }
}

extension Tensor {
  /// As another plain type; unchanged where it is that type already.
  /// - Throws: `RecipeError.badTensor` for numbers beyond float16.
  func stored(as type: DType, name: String, path: String) throws(RecipeError) -> Tensor {
    guard dtype != type else { return self }
    let result = converted(to: type)
    guard type == .float16 else { return result }
    let isFinite = result.bytes.bindMemory(to: UInt16.self).allSatisfy { $0 & 0x7c00 != 0x7c00 }
    guard isFinite else {
      throw .badTensor(
        name, path: path, reason: "it has numbers beyond float16. Choose bf16 or f32.")
    }
    return result
  }
}
