package import Codecs
package import Models
public import Tensors

/// What is done to each block of a walk, in this order: factors move between channels, a method sees
/// the block whole, matrices are compressed one after another, their errors corrected.
package struct BlockTreatment: Sendable {
  package var scalings: [any ChannelScaling] = []
  package var blockMethods: [any BlockMethod] = []
  /// How a matrix is compressed once what flows into it is settled; nil for one that stays.
  package var method: @Sendable (LinearConfiguration) -> (any WeightMethod)? = { _ in nil }
  /// The grid a matrix will be rounded to, for methods that look ahead.
  package var codec: @Sendable (LinearConfiguration) -> AffineGroups? = { _ in nil }
  package var correction: (any WeightCorrection)?
  /// What the input of a compressed matrix is rounded to from then on; nil: nothing.
  package var activations: @Sendable (LinearConfiguration) -> ActivationScheme? = { _ in nil }
  /// Recorded; what methods draw.
  package var seed: UInt64 = 0

  package init() {}

  /// Whether the uncompressed model's activations are carried along.
  func needsOriginal(_ block: Block) -> Bool {
    blockMethods.contains { $0.needsTargets }
      || block.linears.contains {
        method($0.configuration)?.needs.contains(.crossMoment) ?? false
      }
  }

  /// What is measured of a stage's input.
  func needs(_ linears: [Linear]) -> StatisticsNeeds {
    var needs: StatisticsNeeds = []
    for linear in linears {
      guard let method = method(linear.configuration) else { continue }
      needs.formUnion(method.needs)
      if let correction { needs.formUnion(correction.needs) }
      if activations(linear.configuration)?.isStatic == true { needs.insert(.magnitudes) }
    }
    return needs
  }
}

/// Adds back some of what a compressed matrix lost, whatever method made it.
public protocol WeightCorrection: Sendable {
  var needs: StatisticsNeeds { get }

  /// - Parameters:
  ///   - weight: `[outputs, inputs]`, what was compressed.
  ///   - compressed: what it became.
  ///   - statistics: of the matrix's inputs.
  func correct(
    _ weight: Tensor, _ compressed: CompressedWeight, _ statistics: InputStatistics
  ) throws(CompressionError) -> CompressedWeight
}

/// A block after its treatment.
package struct TreatedBlock: Sendable {
  package struct Matrix: Sendable {
    /// Declared name of the module.
    package var module: String
    package var error: EncodingError
    package var relativeOutputError: Double?
    package var seconds: Double
    package var notes: [String]
  }

  package var index: Int
  package var block: Block
  package var matrices: [Matrix] = []
  /// Declared names of tensors that changed and stay dense.
  package var changed: Set<String> = []
  /// Mean squared error of the block's output before and after a block method.
  package var loss: (before: Double, after: Double)?
  package var seconds = 0.0
}
