public import Checkpoints
public import Codecs
public import Text

/// What a run really did. Without its timings it travels inside the output as `pare.json`, whose
/// bytes depend on input, recipe and seed alone.
public struct Report: Sendable {
  public struct TensorResult: Sendable {
    public var row: Plan.Row
    /// How far the stored weights lie from the original ones; nil where nothing changed.
    public var error: EncodingError?
    /// `‖X(W - Ŵ)ᵀ‖² / ‖XWᵀ‖²` on the calibration tokens, where that was measured.
    public var relativeOutputError: Double?
    public var seconds: Double
    public var notes: [String] = []

    init(row: Plan.Row, error: EncodingError?, seconds: Double) {
      self.row = row
      self.error = error
      self.seconds = seconds
    }

    /// - Parameter measured: the report of the tensor's block.
    init(row: Plan.Row, measured: JSON?) {
      self.init(row: row, error: nil, seconds: 0)
      guard row.isQuantized,
        let entry = measured?["matrices"]?.array?.first(where: {
          $0["module"]?.string == row.tensor.module
        })
      else { return }
      error = EncodingError(
        squaredError: entry["squared_error"]?.double ?? 0,
        squaredWeight: entry["squared_weight"]?.double ?? 0,
        largestError: Float(entry["largest_error"]?.double ?? 0),
        count: entry["count"]?.int ?? 0)
      relativeOutputError = entry["relative_output_error"]?.double
      seconds = entry["seconds"]?.double ?? 0
      notes = entry["notes"]?.array?.compactMap(\.string) ?? []
    }
  }

  public let plan: Plan
  public let tensors: [TensorResult]
  /// Every file that was read, with its SHA-256.
  public let inputs: [FileHash]
  /// What was measured on the finished model, such as its divergence; nil if nothing was asked.
  public let measurements: JSON?
  /// The samples on which activations were measured; nil where none were.
  public var calibration: JSON?
  /// What was measured to find each matrix's bits.
  public var allocation: JSON?
  /// What was measured of each block; empty where samples did not pass the model.
  public var blocks: [JSON] = []
  public var output = ""
  public var seconds = 0.0
  public var peakResidentBytes: Int?
  /// Sentences for the user, such as leftovers of killed runs that were removed.
  public var notes: [String] = []

  /// What the samples covered, in words; nil where none passed the model.
  public var coverage: String? {
    guard let calibration, let samples = calibration["samples"]?.int,
      let tokens = calibration["tokens"]?.int, let distinct = calibration["distinct_tokens"]?.int,
      let vocabulary = calibration["vocabulary"]?.int, let origin = calibration["origin"]?.string
    else { return nil }
    return "Calibrated on \(samples) samples, \(tokens) tokens, \(distinct) of \(vocabulary) "
      + "different ones; \(origin)."
  }

  /// - Parameter withTimings: adds what differs from run to run: seconds and peak memory.
  public func json(withTimings: Bool) -> JSON {
    var fields: [(String, JSON)] = [
      ("pare_version", JSON(PareVersion.current)),
      ("model", JSON(plan.modelPath.split(separator: "/").last.map(String.init) ?? plan.modelPath)),
      ("model_type", JSON(plan.modelType)),
    ]
    if withTimings { fields.append(("output", JSON(output))) }
    fields += plan.sizes
    if let measurements { fields.append(("measurements", measurements)) }
    if let allocation { fields.append(("allocation", allocation)) }
    if let calibration { fields.append(("calibration", calibration)) }
    if withTimings {
      fields.append(("seconds", JSON(seconds)))
      fields.append(("peak_resident_bytes", peakResidentBytes.map { JSON($0) } ?? .null))
    }
    fields.append(("recipe", plan.recipe.json))
    fields.append(("consumer", JSON(plan.consumer.rawValue)))
    fields.append(
      (
        "inputs",
        .array(
          inputs.map {
            ["file": JSON($0.file), "bytes": JSON($0.byteCount), "sha256": JSON($0.sha256)]
          })
      ))
    fields.append(("tensors", .array(tensors.map { $0.json(withTimings: withTimings) })))
    return .object(JSONObject(fields))
  }
}

extension Report.TensorResult {
  fileprivate func json(withTimings: Bool) -> JSON {
    var fields = row.fields
    if let error {
      fields.append(("mean_squared_error", JSON(error.meanSquaredError)))
      fields.append(("relative_error", JSON(error.relativeError)))
    }
    if let relativeOutputError {
      fields.append(("relative_output_error", JSON(relativeOutputError)))
    }
    if !notes.isEmpty { fields.append(("notes", .array(notes.map { JSON($0) }))) }
    if withTimings { fields.append(("seconds", JSON(seconds))) }
    return .object(JSONObject(fields))
  }
}

extension Plan {
  /// The plan for `--dry-run --json`: the report's fields as far as they are known before a run.
  public func json(with estimate: Compression.Estimate) -> JSON {
    var fields: [(String, JSON)] = [
      ("model", JSON(modelPath)), ("model_type", JSON(modelType)),
    ]
    fields += sizes
    fields += [
      ("estimated_seconds", JSON(estimate.seconds)),
      ("estimated_resident_bytes", JSON(estimate.residentBytes)), ("recipe", recipe.json),
      ("consumer", JSON(consumer.rawValue)),
      ("tensors", .array(rows.map { .object(JSONObject($0.fields)) })),
    ]
    return .object(JSONObject(fields))
  }

  fileprivate var sizes: [(String, JSON)] {
    [
      ("parameters", JSON(parameters)), ("bytes_before", JSON(bytesBefore)),
      ("bytes", JSON(bytesAfter)), ("bits_per_weight", JSON(bitsPerWeight)),
      ("bits_per_compressed_weight", bitsPerCompressedWeight.map { JSON($0) } ?? .null),
    ]
  }
}

extension Plan.Row {
  fileprivate var fields: [(String, JSON)] {
    var fields: [(String, JSON)] = [
      ("name", JSON(name)), ("role", JSON(tensor.role.rawValue)),
      ("shape", .array(tensor.shape.map { JSON($0) })), ("dtype", JSON(dtype.rawValue)),
    ]
    switch action {
    case .keep(let reason): fields += [("action", "keep"), ("reason", JSON(reason))]
    case .drop(let reason): fields += [("action", "drop"), ("reason", JSON(reason))]
    case .quantize(let codec, let stage):
      fields += [
        ("action", "quantize"), ("method", JSON(stage.method.rawValue)), ("bits", JSON(codec.bits)),
        ("group_size", codec.groupSizeField), ("symmetric", JSON(codec.isSymmetric)),
        ("clipping", JSON(stage.clipping.rawValue)), ("format", JSON(codec.layout.rawValue)),
      ]
    }
    fields += [("bytes_before", JSON(bytesBefore)), ("bytes", JSON(bytesAfter))]
    if !notes.isEmpty { fields.append(("notes", .array(notes.map { JSON($0) }))) }
    return fields
  }
}

extension AffineGroups {
  /// A number, `"channel"` or `"tensor"`.
  fileprivate var groupSizeField: JSON {
    switch granularity {
    case .group(let size): JSON(size)
    case .channel: "channel"
    case .tensor: "tensor"
    }
  }
}
