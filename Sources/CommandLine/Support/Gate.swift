import ArgumentParser
import Text

/// A condition on one field of a report, such as `kl_mean<=0.01`.
struct Gate: ExpressibleByArgument {
  let key: String
  let relation: String
  let limit: Double

  private static let relations: [(String, @Sendable (Double, Double) -> Bool)] = [
    ("<=", { $0 <= $1 }), (">=", { $0 >= $1 }), ("<", { $0 < $1 }), (">", { $0 > $1 }),
  ]

  init?(argument: String) {
    for (relation, _) in Self.relations {
      guard let range = argument.range(of: relation) else { continue }
      key = argument[..<range.lowerBound].trimmingCharacters(in: .whitespaces)
      guard !key.isEmpty,
        let limit = Double(argument[range.upperBound...].trimmingCharacters(in: .whitespaces))
      else { return nil }
      self.relation = relation
      self.limit = limit
      return
    }
    return nil
  }

  /// Whether a value keeps the condition; NaN never does.
  func holds(_ value: Double) -> Bool {
    Self.relations.first { $0.0 == relation }.map { $0.1(value, limit) } ?? false
  }
}

extension [Gate] {
  /// Before a long run: every gate must be on something the command reports.
  func validate(keys: [String]) throws {
    for gate in self where !keys.contains(gate.key) {
      throw ValidationError(
        "--require knows no \"\(gate.key)\"; this command reports \(keys.joined(separator: ", ")).")
    }
  }

  /// Says on stderr which gates failed and ends with exit code 3 if any did.
  func check(_ report: JSON) throws {
    var failed = false
    for gate in self {
      guard let value = report[gate.key]?.double else {
        throw ValidationError("--require: this run reported no \"\(gate.key)\".")
      }
      if !gate.holds(value) {
        Console.note("gate failed: \(gate.key) is \(value), not \(gate.relation) \(gate.limit)")
        failed = true
      }
    }
    if failed { throw ExitCode(3) }
  }
}
