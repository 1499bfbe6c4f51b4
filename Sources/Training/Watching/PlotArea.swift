#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A range of values and the round ones in it that get a tick.
package struct Axis: Sendable {
  package let low: Double
  package let high: Double
  package let ticks: [Double]
  /// Digits after the point that tell the ticks apart.
  package let decimals: Int

  /// - Parameters:
  ///   - values: finite; their range is widened where they are all about the same.
  ///   - isWhole: ticks at whole numbers only.
  package init(_ values: [Double], isWhole: Bool = false) {
    var low = values.min() ?? 0, high = values.max() ?? 1
    let least = max(isWhole ? 1 : 1e-3, max(low.magnitude, high.magnitude) * 1e-6)
    if high - low < least {
      let middle = (low + high) / 2
      (low, high) = (middle - least / 2, middle + least / 2)
    }
    // 1, 2 or 5 times a power of ten: five to ten of them in the range.
    let power = pow(10, floor(log10((high - low) / 6)))
    var step = [1, 2, 5, 10].map { $0 * power }.first { (high - low) / $0 <= 8 } ?? 10 * power
    if isWhole { step = max(step, 1) }
    (self.low, self.high) = (low, high)
    ticks = (Int((low / step).rounded(.up))...Int((high / step).rounded(.up)))
      .map { Double($0) * step }.filter { $0 <= high }
    decimals = isWhole ? 0 : max(0, Int(-floor(log10(step * 1.000_001))))
  }

  /// 0 at the low end, 1 at the high one.
  func share(_ value: Double) -> Double { (value - low) / (high - low) }
}

/// Where in a drawing the values of two axes go.
struct PlotArea {
  let left = 64, top = 52
  let right: Int, bottom: Int
  let x: Axis, y: Axis

  init(width: Int, height: Int, x: Axis, y: Axis) {
    right = max(width - 16, left + 50)
    bottom = max(height - 44, top + 50)
    (self.x, self.y) = (x, y)
  }

  func place(_ step: Double, _ value: Double) -> (x: String, y: String) {
    (
      SVGText.number(Double(left) + x.share(step) * Double(right - left), decimals: 1),
      SVGText.number(Double(bottom) - y.share(value) * Double(bottom - top), decimals: 1)
    )
  }

  /// The column of pixels a step falls into.
  func column(_ step: Double) -> Int { Int(x.share(step) * Double(right - left)) }

  /// Grid, ticks with their numbers, axes with their names.
  func frame(x nameOfX: String, y nameOfY: String) -> [String] {
    var parts: [String] = []
    for tick in y.ticks {
      let height = place(x.low, tick).y
      parts.append(#"<path class="grid" d="M\#(left) \#(height)H\#(right)"/>"#)
      parts.append(
        #"<text x="\#(left - 8)" y="\#(height)" dy="4" text-anchor="end">"#
          + "\(SVGText.number(tick, decimals: y.decimals))</text>")
    }
    for tick in x.ticks {
      let place = place(tick, y.low).x
      parts.append(#"<path class="axis" d="M\#(place) \#(bottom)v5"/>"#)
      parts.append(
        #"<text x="\#(place)" y="\#(bottom + 19)" text-anchor="middle">"#
          + "\(SVGText.grouped(tick))</text>")
    }
    parts.append(#"<path class="axis" d="M\#(left) \#(top)V\#(bottom)H\#(right)"/>"#)
    parts.append(
      #"<text x="\#((left + right) / 2)" y="\#(bottom + 38)" text-anchor="middle">"#
        + "\(SVGText.escaped(nameOfX))</text>")
    parts.append(
      #"<text transform="translate(14 \#((top + bottom) / 2))rotate(-90)" text-anchor="middle">"#
        + "\(SVGText.escaped(nameOfY))</text>")
    return parts
  }

  func centered(_ text: String) -> String {
    #"<text x="\#((left + right) / 2)" y="\#((top + bottom) / 2)" text-anchor="middle">"#
      + "\(SVGText.escaped(text))</text>"
  }
}

/// Numbers and words as they stand in an SVG file.
package enum SVGText {
  /// Rounded to some decimals; zeros at the end stay, so that columns of numbers align.
  package static func number(_ value: Double, decimals: Int) -> String {
    let scale = (0..<decimals).reduce(1.0) { product, _ in product * 10 }
    let scaled = (value * scale).rounded()
    guard scaled.magnitude < 0x1p53 else { return value.description }
    let digits = String(Int(scaled.magnitude))
    let padded = String(repeating: "0", count: max(0, decimals + 1 - digits.count)) + digits
    let sign = scaled < 0 ? "-" : ""
    return decimals == 0
      ? sign + padded : "\(sign)\(padded.dropLast(decimals)).\(padded.suffix(decimals))"
  }

  /// A whole number with commas between its thousands.
  package static func grouped(_ value: Double) -> String {
    let digits = number(value, decimals: 0)
    guard digits.allSatisfy({ $0.isNumber || $0 == "-" }) else { return digits }
    var result = ""
    for (index, digit) in digits.reversed().enumerated() {
      if index > 0, index % 3 == 0, digit != "-" { result.append(",") }
      result.append(digit)
    }
    return String(result.reversed())
  }

  /// Text as content of an element; control characters, which XML forbids, become spaces.
  package static func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "&": result += "&amp;"
      case "\u{0}"..<"\u{20}", "\u{FFFE}", "\u{FFFF}": result += " "
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
