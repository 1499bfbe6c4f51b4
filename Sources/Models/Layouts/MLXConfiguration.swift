public import Codecs
public import Text

/// What MLX's `config.json` says under `quantization`: a layout for all, and by path those that
/// differ.
public struct MLXConfiguration: Quantization {
  public var layout: MLXLayout
  /// By module path; nil keeps it dense.
  public var exceptions: [(module: String, layout: MLXLayout?)]

  public init(layout: MLXLayout, exceptions: [(module: String, layout: MLXLayout?)] = []) {
    self.layout = layout
    self.exceptions = exceptions
  }

  /// MLX quantizes a module where its scales are in the file.
  public func layout(
    of module: String, className: String, isStored: (_ suffix: String) -> Bool
  ) -> (any MatrixLayout)? {
    guard isStored("scales") else { return nil }
    return exceptions.first { $0.module == module }?.layout ?? layout
  }

  init(_ json: JSON, path: String) throws(ModelError) {
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: "mlx: \(reason)", path: path)
    }
    guard let fields = json.object else { throw bad("quantization is not an object") }
    func layout(_ json: JSON) throws(ModelError) -> MLXLayout {
      if let mode = json["mode"]?.string, mode != "affine" { throw bad("mode \(mode)") }
      do throws(CodecError) {
        return try MLXLayout(
          bits: json["bits"]?.int ?? 4, groupSize: json["group_size"]?.int ?? 64)
      } catch {
        throw bad(error.description)
      }
    }
    self.layout = try layout(json)
    exceptions = []
    for (key, value) in zip(fields.keyStrings, fields.values) {
      if value.bool == false {
        exceptions.append((key, nil))
      } else if value.object != nil {
        exceptions.append((key, try layout(value)))
      }
    }
  }

  public var json: JSON {
    func fields(_ layout: MLXLayout) -> [(String, JSON)] {
      [
        ("group_size", JSON(layout.groupSize)), ("bits", JSON(layout.bits)), ("mode", "affine"),
      ]
    }
    return .object(
      JSONObject(
        fields(layout)
          + exceptions.map { exception in
            (
              exception.module,
              exception.layout.map { .object(JSONObject(fields($0))) } ?? false
            )
          }))
  }
}
