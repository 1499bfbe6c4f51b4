import Calibration
import Quantization
import Text
import Yams

/// A stage of a recipe that moves factors between channels, so that the roundings after it cost less.
public struct SmoothStage: Sendable, Equatable {
  public enum Method: String, Sendable, CaseIterable {
    /// Activation outliers move into the weights.
    case smoothquant
    /// Weights that large activations multiply grow before they are rounded.
    case awq
  }

  public var method = Method.smoothquant
  /// α of SmoothQuant; nil searches it for each input.
  public var strength: Double? = 0.5
  /// Exponents that a search tries.
  public var grid = 20
  /// AWQ: whether the weights' size counts besides the activations'.
  public var usesWeights = false
  /// Line of the recipe file where the stage begins.
  public var line: Int?

  public init(_ method: Method = .smoothquant) { self.method = method }

  init(_ node: Node) throws(RecipeError) {
    var fields = try Fields(node, "smooth")
    line = fields.line
    method = try fields.choice("method") ?? method
    if let text = try fields.text("strength") {
      guard text == "search" || Double(text) != nil else {
        throw .badSetting(
          "strength", value: text, expected: "0 to 1, or search", line: fields.line(of: "strength"))
      }
      strength = Double(text)
    }
    grid = try fields.integer("grid") ?? grid
    usesWeights = try fields.flag("duo_scaling") ?? usesWeights
    try fields.finish()
    try validate()
  }

  package func validate() throws(RecipeError) {
    if let strength, !(0...1).contains(strength) {
      throw .badSetting(
        "strength", value: "\(strength)", expected: "0 to 1, or search", line: line)
    }
    guard (1...1000).contains(grid) else {
      throw .badSetting("grid", value: "\(grid)", expected: "1 to 1000", line: line)
    }
  }

  var json: JSON {
    switch method {
    case .smoothquant:
      [
        "method": "smoothquant", "strength": strength.map { JSON($0) } ?? "search",
        "grid": JSON(grid),
      ]
    case .awq: ["method": "awq", "grid": JSON(grid), "duo_scaling": JSON(usesWeights)]
    }
  }

  var scaling: any ChannelScaling {
    switch method {
    case .smoothquant:
      var method = SmoothQuant(strength: strength)
      method.grid = grid
      return method
    case .awq:
      var method = AWQ()
      method.grid = grid
      method.usesWeights = usesWeights
      return method
    }
  }
}
