public import Codecs
public import Tensors

/// A way to compress one matrix, given what was measured about its inputs.
///
/// A method is a value with settings. It never sees a model: whoever walks one hands it a weight
/// and the statistics it asks for, and puts the result in the weight's place.
public protocol WeightMethod: Sendable {
  /// What the method wants to know about the matrix's inputs.
  var needs: StatisticsNeeds { get }

  /// - Parameters:
  ///   - weight: `[outputs, inputs]` of any floating-point type, possibly mapped; the method reads it
  ///     tile by tile and may give its pages back.
  ///   - statistics: of as many inputs, with everything that `needs` names.
  /// - Throws: `CompressionError`.
  func compress(_ weight: Tensor, _ statistics: InputStatistics) throws(CompressionError)
    -> CompressedWeight

  /// Several matrices that read one input: what only depends on that is worked out once.
  func compress(_ weights: [Tensor], sharing statistics: InputStatistics)
    throws(CompressionError) -> [CompressedWeight]
}

extension WeightMethod {
  public var needs: StatisticsNeeds { [] }

  public func compress(_ weights: [Tensor], sharing statistics: InputStatistics)
    throws(CompressionError) -> [CompressedWeight]
  {
    var results: [CompressedWeight] = []
    for weight in weights { results.append(try compress(weight, statistics)) }
    return results
  }

  /// For methods that look at the weight alone.
  public func compress(_ weight: Tensor) throws(CompressionError) -> CompressedWeight {
    precondition(needs.isEmpty, "this method needs statistics of the inputs")
    return try compress(weight, .none(inputs: weight.columns))
  }
}

/// What compressing one matrix gave.
public struct CompressedWeight: Sendable {
  public let weight: any StoredWeight
  /// How far the new weight lies from the old.
  public let error: EncodingError
  /// `‖X(W - Ŵ)ᵀ‖² / ‖XWᵀ‖²` on the calibration tokens; nil where no second moment was measured.
  public var relativeOutputError: Double?
  /// Sentences for the report: a raised damping, a fallback.
  public var notes: [String] = []

  public init(
    weight: any StoredWeight, error: EncodingError, relativeOutputError: Double? = nil,
    notes: [String] = []
  ) {
    self.weight = weight
    self.error = error
    self.relativeOutputError = relativeOutputError
    self.notes = notes
  }
}

/// Why a matrix could not be compressed. Whoever knows the tensor's name says it too.
public enum CompressionError: Error, Equatable, CustomStringConvertible {
  /// A weight that is NaN or infinite.
  case notFinite(row: Int, column: Int)
  /// A setting outside the method's range.
  case unsupportedSetting(String)
  /// Inputs whose second moment could not be factorized even when damped.
  case notPositiveDefinite(damping: Double)
  /// The stored format cannot hold this matrix.
  case codec(CodecError)
  /// One matrix of a block that was compressed as a whole.
  case matrix(name: String, reason: String)

  public var description: String {
    switch self {
    case .notFinite(let row, let column):
      CodecError.notFinite(row: row, column: column).description
    case .unsupportedSetting(let reason): reason
    case .notPositiveDefinite(let damping):
      "the inputs' second moment has no Cholesky factor even with \(damping) of its mean diagonal "
        + "added; give more or more varied calibration text, or raise the damping."
    case .codec(let error): error.description
    case .matrix(let name, let reason): "\(name): \(reason)"
    }
  }

  public init(_ error: CodecError) {
    if case .notFinite(let row, let column) = error {
      self = .notFinite(row: row, column: column)
    } else {
      self = .codec(error)
    }
  }
}
