/// The course of a training as an SVG drawing: the loss of every step faint, smoothed strong, and the
/// held-out loss where it was measured. The same figures give the same bytes; colours follow the
/// reader's light or dark mode.
public struct LossCurve: Sendable, Equatable {
  public struct Point: Sendable, Equatable {
    public var step: Int
    /// Nats per token; where it is not finite the line has a gap.
    public var loss: Double

    public init(step: Int, loss: Double) {
      self.step = step
      self.loss = loss
    }
  }

  public var title: String
  /// Steps rise.
  public var training: [Point]
  public var heldOut: [Point]
  public var width = 720
  public var height = 400

  public init(title: String, training: [Point], heldOut: [Point] = []) {
    self.title = title
    self.training = training
    self.heldOut = heldOut
  }

  /// The curve of a log's lines, held-out losses taken from `held_out_loss`.
  public init(title: String, metrics: [TrainingMetrics]) {
    self.init(
      title: title, training: metrics.map { Point(step: $0.step, loss: $0.loss) },
      heldOut: metrics.compactMap { line in
        line.heldOutLoss.map { Point(step: line.step, loss: $0) }
      })
  }

  // MARK: Figures

  /// Larger losses are left out as infinite ones are: they would flatten everything else.
  private static func isDrawable(_ point: Point) -> Bool { point.loss.magnitude < 1e30 }

  /// Steps that the average looks back, about.
  package var smoothingWindow: Int { max(1, training.count / 50) }

  /// Exponential moving average of the training loss, its start corrected as in Adam (Kingma and Ba
  /// 2014, arXiv:1412.6980, section 3); losses that cannot be drawn are skipped.
  package var smoothed: [Point] {
    let decay = 1 - 1 / Double(smoothingWindow)
    var average = 0.0, weight = 0.0
    return training.filter(Self.isDrawable).map { point in
      average = decay * average + (1 - decay) * point.loss
      weight = decay * weight + (1 - decay)
      return Point(step: point.step, loss: average / weight)
    }
  }

  // MARK: Drawing

  public func svg() -> String {
    let drawable = (training + heldOut).filter(Self.isDrawable)
    let missing = training.count + heldOut.count - drawable.count
    let area = PlotArea(
      width: width, height: height, x: Axis(drawable.map { Double($0.step) }, isWhole: true),
      y: Axis(drawable.map(\.loss)))
    var body = area.frame(x: "step", y: "loss (nats per token)")
    if drawable.isEmpty {
      body.append(area.centered("no finite loss"))
    } else {
      if smoothingWindow > 1 {
        body.append(path("raw", area, training))
        body.append(path("training", area, smoothed))
      } else {
        body.append(path("training", area, training))
      }
      body.append(path("held-out", area, heldOut))
      if heldOut.count <= 200 {
        body += heldOut.filter(Self.isDrawable).map {
          let (x, y) = area.place(Double($0.step), $0.loss)
          return #"<circle class="held-out-dot" cx="\#(x)" cy="\#(y)" r="2.5"/>"#
        }
      }
    }
    return """
      <svg xmlns="http://www.w3.org/2000/svg" width="\(width)" height="\(height)" \
      viewBox="0 0 \(width) \(height)" role="img">
      <title>\(SVGText.escaped(title))</title>
      <style>\(Self.style)</style>
      <text class="title" x="\(area.left)" y="20">\(SVGText.escaped(title))</text>
      \((legend(area, missing: missing) + body).filter { !$0.isEmpty }.joined(separator: "\n"))
      </svg>

      """
  }

  /// One line per series, with its latest value.
  private func legend(_ area: PlotArea, missing: Int) -> [String] {
    var entries: [(mark: String, text: String)] = []
    func value(_ points: [Point]) -> String {
      points.last { Self.isDrawable($0) }.map { " \(SVGText.number($0.loss, decimals: 4))" } ?? ""
    }
    if smoothingWindow > 1 {
      entries.append(("raw", "training, each step"))
      entries.append(
        ("training", "training, mean of about \(smoothingWindow) steps\(value(smoothed))"))
    } else {
      entries.append(("training", "training\(value(training))"))
    }
    if !heldOut.isEmpty { entries.append(("held-out", "held out\(value(heldOut))")) }
    if missing > 0 { entries.append(("", "\(missing) not finite")) }
    var x = area.left
    return entries.flatMap { entry -> [String] in
      let start = x
      // About six and a half units a letter at this size.
      x += 32 + Int(Double(entry.text.count) * 6.5)
      let line =
        entry.mark.isEmpty
        ? "" : #"<path class="\#(entry.mark)" d="M\#(start) 35h16"/>"#
      return [line, #"<text x="\#(start + 22)" y="39">\#(SVGText.escaped(entry.text))</text>"#]
    }
  }

  /// A line through the points, broken where a loss cannot be drawn, with at most the lowest and the
  /// highest point of each column of pixels.
  private func path(_ name: String, _ area: PlotArea, _ points: [Point]) -> String {
    var data = ""
    var begins = true
    var column: [Point] = []
    func emit() {
      guard let low = column.indices.min(by: { column[$0].loss < column[$1].loss }),
        let high = column.indices.max(by: { column[$0].loss < column[$1].loss })
      else { return }
      for index in Set([low, high]).sorted() {
        let (x, y) = area.place(Double(column[index].step), column[index].loss)
        // A lone point shows as a dot, as its line has round ends.
        data += begins ? "M\(x) \(y)h0" : "L\(x) \(y)"
        begins = false
      }
      column = []
    }
    for point in points {
      guard Self.isDrawable(point) else {
        emit()
        begins = true
        continue
      }
      if let first = column.first,
        area.column(Double(first.step)) != area.column(Double(point.step))
      {
        emit()
      }
      column.append(point)
    }
    emit()
    return data.isEmpty ? "" : #"<path class="\#(name)" d="\#(data)"/>"#
  }

  private static let style = """
    text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:14px;font-weight:600}\
    .grid{stroke:#d0d7de;stroke-width:1;fill:none}.axis{stroke:#57606a;stroke-width:1;fill:none}\
    .raw,.training,.held-out{fill:none;stroke-linecap:round;stroke-linejoin:round}\
    .raw{stroke:#3b82f6;stroke-opacity:.3}.training{stroke:#3b82f6;stroke-width:2}\
    .held-out{stroke:#f97316;stroke-width:2}.held-out-dot{fill:#f97316}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#3d444d}.axis{stroke:#9198a1}}
    """
}
