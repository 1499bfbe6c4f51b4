public import Tensors

/// How one quantized matrix lies in a safetensors file: the names of its tensors after the module's
/// path, and what they decode to.
public protocol MatrixLayout: Sendable {
  var bits: Int { get }
  /// As a table shows it: `4 bits g128`.
  var summary: String { get }
  /// Endings of the tensors that must stand in place of `weight`.
  var requiredSuffixes: [String] { get }
  /// Endings that may stand there, required ones included.
  var componentSuffixes: [String] { get }

  /// What the layer's input is rounded to; nil: not at all.
  var activations: ActivationScheme? { get }

  /// - Throws: `CodecError` naming the component.
  func decode(components: [String: Tensor]) throws(CodecError) -> any StoredWeight
}

extension MatrixLayout {
  public var activations: ActivationScheme? { nil }
}

/// A layout that other forms of a matrix can be brought into.
package protocol WritableLayout: MatrixLayout {
  /// Names, types and shapes of what `encode` gives, and whether a number is rounded on the way.
  /// - Throws: `CodecError.notRepresentable` where the layout has no place for this grid.
  func plan(_ grid: OpenGrid) throws(CodecError) -> LayoutPlan
  /// - Parameter codes: unsigned, `[outputs, inputs]`.
  func encode(_ grid: OpenGrid, codes: [UInt8])
    throws(CodecError) -> [(suffix: String, tensor: Tensor)]
}

/// What writing a matrix in some layout will give.
package struct LayoutPlan: Sendable {
  package var components: [(suffix: String, dtype: DType, shape: [Int])]
  /// What is rounded to the stored type; nil where every decoded value stays as it was.
  package var rounding: String?

  package init(
    components: [(suffix: String, dtype: DType, shape: [Int])], rounding: String?
  ) {
    self.components = components
    self.rounding = rounding
  }
}

/// Takes components out by name and checks them.
struct ComponentReader {
  private var rest: [String: Tensor]

  init(_ components: [String: Tensor]) { rest = components }

  mutating func take(_ name: String, types: [DType]) throws(CodecError) -> Tensor {
    guard let tensor = rest.removeValue(forKey: name) else { throw .missing(component: name) }
    guard types.contains(tensor.dtype) else {
      throw .wrongType(
        component: name, expected: types.map(\.rawValue).joined(separator: " or "),
        actual: tensor.dtype)
    }
    return tensor
  }

  mutating func matrix(_ name: String, types: [DType]) throws(CodecError) -> Tensor {
    let tensor = try take(name, types: types)
    guard tensor.shape.count == 2 else {
      throw .unsupportedShape(shape: tensor.shape, dtype: tensor.dtype)
    }
    return tensor
  }

  mutating func optional(_ name: String, types: [DType]) throws(CodecError) -> Tensor? {
    rest[name] == nil ? nil : try take(name, types: types)
  }

  func check(_ tensor: Tensor, _ name: String, shape: [Int]) throws(CodecError) {
    guard tensor.shape == shape else {
      throw .wrongShape(component: name, expected: shape, actual: tensor.shape)
    }
  }

  /// A scale that is no number would only show in what the model says.
  func checkFinite(_ tensor: Tensor, _ name: String) throws(CodecError) {
    let values = tensor.widened()
    for index in 0..<values.count where !values.floats[index].isFinite {
      throw .wrongValue(component: name, reason: "number \(index) is NaN or infinite")
    }
  }

  func finish() throws(CodecError) {
    if let stray = rest.keys.sorted().first { throw .unexpected(component: stray) }
  }
}

extension DType {
  /// What scales may be stored in.
  static let scaleTypes: [DType] = [.float16, .bfloat16, .float32]
  /// Packed words: writers disagree about the sign.
  static let words: [DType] = [.int32, .uint32]
}
