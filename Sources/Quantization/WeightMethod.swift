public import Codecs
public import Tensors

/// A way to compress one matrix, given what was measured about its inputs.
///
/// A method is a value with settings. It never sees a model: whoever walks one hands it a weight
/// and the statistics it asks for, and puts the result in the weight's place.
public protocol WeightMethod: Sendable {
  /// What the method needs to know about the layer's inputs; `NoStatistics` when nothing.
  associatedtype Statistics: Sendable
  associatedtype Compressed: StoredWeight

  /// - Parameter weight: `[outputs, inputs]` of any floating-point type, possibly mapped; the
  ///   method reads it tile by tile and may give its pages back.
  /// - Throws: `QuantizationError`.
  func compress(_ weight: Tensor, _ statistics: Statistics) throws(QuantizationError)
    -> Compression<Compressed>
}

/// For methods that look at the weight alone.
public struct NoStatistics: Sendable {
  public init() {}
}

extension WeightMethod where Statistics == NoStatistics {
  public func compress(_ weight: Tensor) throws(QuantizationError) -> Compression<Compressed> {
    try compress(weight, NoStatistics())
  }
}

/// What compressing one matrix gave.
public struct Compression<Compressed: StoredWeight>: Sendable {
  public let weight: Compressed
  /// How far the new weight lies from the old.
  public let error: EncodingError

  public init(weight: Compressed, error: EncodingError) {
    self.weight = weight
    self.error = error
  }
}

/// Why a matrix could not be compressed. Whoever knows the tensor's name says it too.
public enum QuantizationError: Error, Equatable, CustomStringConvertible {
  /// A weight that is NaN or infinite.
  case notFinite(row: Int, column: Int)
  /// A setting outside the method's range.
  case unsupportedSetting(String)
  /// The stored format cannot hold this matrix.
  case codec(CodecError)

  public var description: String {
    switch self {
    case .notFinite(let row, let column):
      CodecError.notFinite(row: row, column: column).description
    case .unsupportedSetting(let reason): reason
    case .codec(let error): error.description
    }
  }

  init(_ error: CodecError) {
    if case .notFinite(let row, let column) = error {
      self = .notFinite(row: row, column: column)
    } else {
      self = .codec(error)
    }
  }
}
