import Recipes

/// Plans and reports as tables.
enum PlanText {
  static func table(
    _ plan: Plan, _ estimate: Compression.Estimate, calibration: String? = nil
  ) -> String {
    var table = Table(["tensor", "shape", "bytes", "becomes", "bytes"], leading: [0, 1, 3])
    for row in plan.rows {
      table.add([
        row.name, row.tensor.shape.map(String.init).joined(separator: "×"),
        Format.bytes(row.bytesBefore), becomes(row), Format.bytes(row.bytesAfter),
      ])
    }
    var lines = [table.text, ""]
    lines += notes(plan)
    lines.append("\(sizes(plan)).")
    if let calibration { lines.append("Calibration: \(calibration).") }
    lines.append(
      "About \(Format.number(estimate.seconds, 1)) s and \(Format.bytes(estimate.residentBytes)) "
        + "of memory. Nothing was written.")
    return lines.joined(separator: "\n")
  }

  static func summary(_ report: Report) -> String {
    var lines = notes(report.plan)
    lines.append("\(report.output): \(sizes(report.plan)).")
    if let coverage = report.coverage { lines.append(coverage) }
    let worst = report.tensors.compactMap { tensor in tensor.error.map { (tensor.row.name, $0) } }
      .max { $0.1.relativeError < $1.1.relativeError }
    if let (name, error) = worst {
      lines.append(
        "Largest relative squared error: \(Format.number(error.relativeError * 100, 3)) % in \(name)."
      )
    }
    let memory = report.peakResidentBytes.map { ", peak memory \(Format.bytes($0))" } ?? ""
    lines.append("\(Format.number(report.seconds, 1)) s\(memory); details in pare.json.")
    if let measured = report.measurements, let kl = measured["kl_mean"]?.double,
      let error = measured["kl_standard_error"]?.double, let top = measured["same_top"]?.double
    {
      lines.append(
        "Against the original: KL \(Format.withError(kl, error, 5)) nats, "
          + "same top token \(Format.number(top * 100, 1)) %.")
    }
    return lines.joined(separator: "\n")
  }

  private static func becomes(_ row: Plan.Row) -> String {
    switch row.action {
    case .keep(let reason): "\(row.dtype.rawValue) (\(reason))"
    case .drop(let reason): "- (\(reason))"
    case .quantize(let codec, _):
      "\(codec.bits) bits "
        + {
          switch codec.granularity {
          case .group(let size): "g\(size)"
          case .channel: "per channel"
          case .tensor: "per tensor"
          }
        }() + (codec.isSymmetric ? "" : " asymmetric")
    }
  }

  /// Each remark once, with how many tensors it is about.
  private static func notes(_ plan: Plan) -> [String] {
    var seen: [(note: String, first: String, count: Int)] = []
    for row in plan.rows {
      for note in row.notes {
        if let index = seen.firstIndex(where: { $0.note == note }) {
          seen[index].count += 1
        } else {
          seen.append((note, row.name, 1))
        }
      }
    }
    return seen.map { seen in
      "note: \(seen.note) (\(seen.first)\(seen.count > 1 ? " and \(seen.count - 1) more" : ""))"
    }
  }

  private static func sizes(_ plan: Plan) -> String {
    var text =
      "\(Format.bytes(plan.bytesBefore)) become \(Format.bytes(plan.bytesAfter)), "
      + "\(Format.number(plan.bitsPerWeight, 2)) bits per weight"
    if let bits = plan.bitsPerCompressedWeight {
      text += " (\(Format.number(bits, 2)) of the quantized ones)"
    }
    return text
  }
}
