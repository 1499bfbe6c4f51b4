import Foundation

/// Columns of text: the first column to the left, numbers to the right.
struct Table {
  private var rows: [[String]]
  private let leading: Set<Int>

  /// - Parameter leading: columns set flush left.
  init(_ header: [String], leading: Set<Int> = [0]) {
    rows = [header]
    self.leading = leading
  }

  mutating func add(_ cells: [String]) { rows.append(cells) }

  var text: String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in
      rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
    }
    return rows.map { row in
      row.enumerated().map { column, cell in
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        return leading.contains(column) ? cell + padding : padding + cell
      }.joined(separator: "  ").trimmingTrailingSpaces
    }.joined(separator: "\n")
  }
}

extension String {
  fileprivate var trimmingTrailingSpaces: String {
    var text = self[...]
    while text.last == " " { text.removeLast() }
    return String(text)
  }
}

/// Numbers as tables print them.
enum Format {
  static func bytes(_ count: Int) -> String {
    let value = Double(count)
    return switch value {
    case 1e9...: String(format: "%.2f GB", value / 1e9)
    case 1e6...: String(format: "%.2f MB", value / 1e6)
    case 1e3...: String(format: "%.1f KB", value / 1e3)
    default: "\(count) B"
    }
  }

  static func count(_ count: Int) -> String {
    var digits = Array(String(count))
    var index = digits.count - 3
    while index > 0 {
      digits.insert(",", at: index)
      index -= 3
    }
    return String(digits)
  }

  static func number(_ value: Double, _ decimals: Int) -> String {
    String(format: "%.\(decimals)f", value)
  }

  static func withError(_ value: Double, _ error: Double, _ decimals: Int) -> String {
    "\(number(value, decimals)) ± \(number(error, decimals))"
  }
}
