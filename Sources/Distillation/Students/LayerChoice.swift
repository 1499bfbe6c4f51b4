/// Which of a teacher's layers a student takes.
package enum LayerChoice: Sendable, Equatable {
  /// Evenly spread, the first and the last among them.
  case uniform
  case first
  case last
  /// In rising order, from 0.
  case list([Int])
  /// Those that change their input most (ShortGPT, Men et al. 2024, arXiv:2403.03853).
  case importance

  /// - Parameter text: `uniform`, `first`, `last`, `importance` or numbers from 0 such as `0,2,4`.
  package init(parsing text: String) throws(DistillationError) {
    switch text {
    case "uniform": self = .uniform
    case "first": self = .first
    case "last": self = .last
    case "importance": self = .importance
    default:
      let parts = text.split(separator: ",", omittingEmptySubsequences: false)
      let numbers = parts.compactMap { Int($0) }
      guard numbers.count == parts.count else {
        throw .badSetting(
          "the choice of layers", value: "\"\(text)\"",
          expected: "uniform, first, last, importance or numbers such as 0,2,4")
      }
      self = .list(numbers)
    }
  }

  /// The teacher's layers, in rising order.
  ///
  /// - Parameters:
  ///   - wanted: how many; those of a list, or all, when nil.
  ///   - influence: of each layer, for `importance`.
  /// - Throws: `badSetting`.
  package func layers(
    of count: Int, wanted: Int?, influence: [Double]?
  ) throws(DistillationError) -> [Int] {
    let number: Int
    if case .list(let list) = self {
      let isRising = zip(list, list.dropFirst()).allSatisfy { $0 < $1 }
      guard let first = list.first, let last = list.last, isRising, first >= 0, last < count,
        list.count == wanted ?? list.count
      else {
        throw .badSetting(
          "the list of layers", value: "\(list)",
          expected: "\(wanted.map { "\($0) " } ?? "")rising numbers from 0 to \(count - 1)")
      }
      return list
    }
    number = wanted ?? count
    guard (1...count).contains(number) else {
      throw .badSetting(
        "the number of layers", value: "\(number)",
        expected: "between 1 and the teacher's \(count)")
    }
    switch self {
    case .uniform:
      if number == 1 { return [0] }
      return (0..<number).map { ($0 * (count - 1) * 2 + number - 1) / (2 * (number - 1)) }
    case .first, .list: return Array(0..<number)
    case .last: return Array((count - number)..<count)
    case .importance:
      guard number < count else { return Array(0..<count) }
      guard let influence, influence.count == count else {
        throw .badSetting(
          "the sample that layers are chosen by", value: "absent", expected: "some text")
      }
      return Importance.best(number, of: influence)
    }
  }
}

enum Importance {
  /// Places of the largest scores, in rising order; of equals the first.
  static func best(_ count: Int, of scores: [Double]) -> [Int] {
    scores.indices.sorted { scores[$0] > scores[$1] || (scores[$0] == scores[$1] && $0 < $1) }
      .prefix(count).sorted()
  }
}
