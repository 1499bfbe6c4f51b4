import Calibration
import Quantization
import Text
import Yams

/// A stage of a recipe that adds to every quantized matrix of the stages before a product of two thin
/// ones, which makes up for most of its error.
public struct CorrectStage: Sendable, Equatable {
  /// Which errors count.
  public enum Space: String, Sendable, CaseIterable {
    /// What they do to the outputs (EoRA).
    case outputs
    /// All weights' alike (LoRC).
    case weights
  }

  public var rank = 16
  public var space = Space.outputs
  /// Line of the recipe file where the stage begins.
  public var line: Int?

  public init(rank: Int) { self.rank = rank }

  init(_ node: Node) throws(RecipeError) {
    var fields = try Fields(node, "correct")
    line = fields.line
    rank = try fields.integer("rank") ?? rank
    space = try fields.choice("space") ?? space
    try fields.finish()
    try validate()
  }

  package func validate() throws(RecipeError) {
    guard rank >= 1 else {
      throw .badSetting("rank", value: String(rank), expected: "1 or more", line: line)
    }
  }

  var json: JSON { ["rank": JSON(rank), "space": JSON(space.rawValue)] }

  var correction: LowRankCorrection {
    LowRankCorrection(rank: rank, space: space == .outputs ? .outputs() : .weights)
  }
}
