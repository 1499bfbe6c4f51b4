import Tensors

/// Parameters that learn at a rate, or decay, of their own.
public struct ParameterGroup: Sendable, Equatable {
  public enum Members: Sendable, Equatable {
    /// Names that match a pattern in which `*` stands for any characters: `*.mlp.*`.
    case named(String)
    /// Matrices inside blocks.
    case blockMatrices
    /// Everything else: embeddings, heads, norms, biases.
    case others

    func contains(_ parameter: Parameter) -> Bool {
      switch self {
      case .named(let pattern): matches(pattern[...], parameter.name[...])
      case .blockMatrices: parameter.isBlockMatrix
      case .others: !parameter.isBlockMatrix
      }
    }
  }

  public var members: Members
  /// Multiplies the optimizer's learning rate.
  public var learningRateFactor: Double
  /// In place of the optimizer's weight decay, for members that decay; nil for the optimizer's.
  public var weightDecay: Double?

  public init(_ members: Members, learningRateFactor: Double = 1, weightDecay: Double? = nil) {
    self.members = members
    self.learningRateFactor = learningRateFactor
    self.weightDecay = weightDecay
  }

  func validate() throws(TrainingError) {
    try require("a group's learning rate factor", learningRateFactor, .notNegative)
    if let weightDecay { try require("a group's weight decay", weightDecay, .notNegative) }
  }
}

/// What groups and flags make of an optimizer's settings for one parameter.
struct Rates {
  let learningRate, weightDecay: Double

  init(
    _ parameter: Parameter, learningRate: Double, weightDecay: Double, groups: [ParameterGroup]
  ) {
    let group = groups.first { $0.members.contains(parameter) }
    self.learningRate = learningRate * (group?.learningRateFactor ?? 1)
    self.weightDecay = parameter.decays ? group?.weightDecay ?? weightDecay : 0
  }
}

private func matches(_ pattern: Substring, _ name: Substring) -> Bool {
  let parts = pattern.split(separator: "*", omittingEmptySubsequences: false)
  guard let first = parts.first, let last = parts.last, parts.count > 1 else {
    return pattern == name
  }
  guard name.hasPrefix(first) else { return false }
  var rest = name.dropFirst(first.count)
  // The leftmost place of each middle part leaves the most room for those after it.
  for part in parts.dropFirst().dropLast() where !part.isEmpty {
    guard let start = rest.indices.first(where: { rest[$0...].hasPrefix(part) }) else {
      return false
    }
    rest = rest[start...].dropFirst(part.count)
  }
  return rest.hasSuffix(last)
}

/// Ranges of settings.
enum SettingRange {
  case notNegative, positive, belowOne

  var words: String {
    switch self {
    case .notNegative: "a number not below 0"
    case .positive: "a number above 0"
    case .belowOne: "at least 0 and below 1"
    }
  }

  func contains(_ value: Double) -> Bool {
    switch self {
    case .notNegative: value >= 0 && value.isFinite
    case .positive: value > 0 && value.isFinite
    case .belowOne: value >= 0 && value < 1
    }
  }
}

func require(_ name: String, _ value: Double, _ range: SettingRange) throws(TrainingError) {
  guard range.contains(value) else {
    throw .badSetting(name, value: "\(value)", expected: range.words)
  }
}
