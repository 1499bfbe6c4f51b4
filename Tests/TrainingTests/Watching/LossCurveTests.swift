import Foundation
import Testing
import Training

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// Collects an SVG's elements; a document that is not well-formed fails.
private final class Drawing: NSObject, XMLParserDelegate {
  var elements: [(name: String, attributes: [String: String])] = []
  var text = ""

  init(_ svg: String) {
    super.init()
    let parser = XMLParser(data: Data(svg.utf8))
    parser.delegate = self
    #expect(parser.parse(), "\(parser.parserError.map(String.init(describing:)) ?? "")")
  }

  func parser(
    _ parser: XMLParser, didStartElement name: String, namespaceURI: String?,
    qualifiedName: String?, attributes: [String: String]
  ) {
    elements.append((name, attributes))
  }

  func parser(_ parser: XMLParser, foundCharacters string: String) { text += string }

  func data(_ className: String) -> [String] {
    elements.filter { $0.attributes["class"] == className }.compactMap { $0.attributes["d"] }
  }

  /// The numbers of every path's data and every mark's place.
  var numbersAreFinite: Bool {
    elements.allSatisfy { element in
      ["d", "cx", "cy", "x", "y"].allSatisfy { key in
        !["nan", "inf"].contains { element.attributes[key]?.contains($0) ?? false }
      }
    }
  }
}

private func points(_ losses: [Double], every: Int = 1) -> [LossCurve.Point] {
  losses.enumerated().map { LossCurve.Point(step: ($0.offset + 1) * every, loss: $0.element) }
}

@Test func aCurveHasAxesLegendAndLines() {
  let losses = (0..<5000).map { (index: Int) -> Double in
    let slow = 6 / Double(index / 50 + 1)
    let fast = 0.1 * Double(index % 7)
    return 2 + slow + fast
  }
  let curve = LossCurve(
    title: "stories <1M> & \"more\"\u{7}", training: points(losses),
    heldOut: points([5, 3, 2.75], every: 1500))
  let drawing = Drawing(curve.svg())
  #expect(curve.svg() == curve.svg())
  for words in [
    "stories <1M> & \"more\" ", "step", "loss (nats per token)", "training, each step",
    "mean of about 100 steps", "held out 2.7500", "5,000", "2", "8",
  ] { #expect(drawing.text.contains(words), "\(words)") }
  #expect(drawing.data("raw").count == 2 && drawing.data("held-out").count == 2)
  #expect(drawing.elements.count { $0.name == "circle" } == 3)
  // Two points a column at most, however long the training.
  #expect(drawing.data("raw").allSatisfy { $0.split(separator: "L").count < 1400 })
  #expect(drawing.numbersAreFinite)
}

@Test(arguments: [
  [], [3.5], [.nan], [.infinity, -.infinity], [2, 2, 2, 2], [0, 0], [1, .nan, 3],
  [.nan, 1], [1e29, -1e29], [1e300, 1], [1e-300, 2e-300], [-5, 5], [1, 1 + 1e-15],
  [Double](repeating: .nan, count: 500), [Double](repeating: 7, count: 500),
])
func extremesStayDrawable(losses: [Double]) {
  for heldOut in [[], points(losses), [LossCurve.Point(step: Int.max, loss: 1)]] {
    let drawing = Drawing(
      LossCurve(title: "", training: points(losses), heldOut: heldOut).svg())
    #expect(drawing.numbersAreFinite)
    #expect(drawing.elements.count < 1000)
  }
}

@Test func aLossThatIsNotFiniteLeavesAGapAndIsCounted() {
  let drawing = Drawing(
    LossCurve(title: "gap", training: points([4, 3, .nan, 2, .infinity, 1])).svg())
  let line = drawing.data("training").last ?? ""
  #expect(line.split(separator: "M").count == 3)
  #expect(drawing.text.contains("2 not finite"))
}

@Test func onePointShowsAsADot() {
  let drawing = Drawing(LossCurve(title: "one", training: points([3])).svg())
  #expect(drawing.data("training").last?.contains("h0") == true)
}

@Test func theSmoothedLossOfAConstantIsThatConstant() {
  let curve = LossCurve(title: "", training: points([Double](repeating: 2.5, count: 400)))
  #expect(curve.smoothingWindow == 8 && curve.smoothed.count == 400)
  for point in curve.smoothed { #expect(abs(point.loss - 2.5) < 1e-12) }
}

@Test(arguments: [(0.0, 1.0), (1.2, 8.9), (-3, 1e6), (0.001, 0.0012), (5, 5), (1e20, 1e20)])
func ticksAreRoundFewAndInside(low: Double, high: Double) {
  let axis = Axis([low, high])
  #expect((3...12).contains(axis.ticks.count), "\(axis.ticks)")
  #expect(axis.ticks.allSatisfy { $0 >= axis.low - 1e-9 * abs(axis.low) && $0 <= axis.high })
  let labels = axis.ticks.map { SVGText.number($0, decimals: axis.decimals) }
  #expect(Set(labels).count == labels.count, "\(labels)")
}

@Test func numbersAreWrittenWithoutAnyLocale() {
  #expect(SVGText.number(1234.5678, decimals: 2) == "1234.57")
  #expect(SVGText.number(-0.04, decimals: 1) == "0.0")
  #expect(SVGText.number(-0.06, decimals: 1) == "-0.1")
  #expect(SVGText.number(0.05, decimals: 3) == "0.050")
  #expect(SVGText.grouped(-1_234_567) == "-1,234,567")
  #expect(SVGText.grouped(999) == "999")
}

@Test func aCurveIsMadeOfALogsLines() {
  let metrics = [
    TrainingMetrics(step: 1, tokens: 1, loss: 3),
    TrainingMetrics(step: 2, tokens: 2, loss: 2, others: [.init("held_out_loss", 2.5)]),
  ]
  let curve = LossCurve(title: "t", metrics: metrics)
  #expect(curve.training == points([3, 2]))
  #expect(curve.heldOut == [.init(step: 2, loss: 2.5)])
}
