/// Means with their errors and percentiles, in `Double`.
package enum Statistics {
  package static func mean(_ values: [Double]) -> Double {
    values.reduce(0, +) / Double(max(values.count, 1))
  }

  /// Standard deviation of the mean of independent values; zero where there are fewer than two.
  package static func standardError(_ values: [Double]) -> Double {
    guard values.count > 1 else { return 0 }
    let mean = mean(values)
    let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    return (squares / Double(values.count - 1) / Double(values.count)).squareRoot()
  }

  /// Linear interpolation between order statistics, as NumPy's default.
  package static func percentile(_ share: Double, ofSorted values: [Double]) -> Double {
    guard let last = values.indices.last else { return 0 }
    let position = share * Double(last)
    let lower = Int(position), upper = min(lower + 1, last)
    return values[lower] + (values[upper] - values[lower]) * (position - Double(lower))
  }
}
