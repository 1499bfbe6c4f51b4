public import Codecs
public import Text

/// The `quantization_config` of AutoAWQ's "gemm" files.
public struct AWQConfiguration: Quantization {
  public var layout: AWQLayout
  /// Linear layers that stay dense, by name.
  public var dense: [String]

  public init(layout: AWQLayout, dense: [String] = []) {
    self.layout = layout
    self.dense = dense
  }

  public func layout(
    of module: String, className: String, isStored: (_ suffix: String) -> Bool
  ) -> (any MatrixLayout)? {
    isStored("qweight") ? layout : nil
  }

  init(_ json: JSON, path: String) throws(ModelError) {
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: "awq: \(reason)", path: path)
    }
    let version = json["version"]?.string ?? json["format"]?.string ?? "gemm"
    guard version.lowercased() == "gemm" else { throw bad("version \(version); gemm is known") }
    if let bits = json["bits"]?.int ?? json["w_bit"]?.int, bits != 4 { throw bad("\(bits) bits") }
    if json["zero_point"]?.bool == false { throw bad("zero_point false") }
    let size = json["group_size"]?.int ?? json["q_group_size"]?.int ?? 128
    layout = AWQLayout(groupSize: size > 0 ? size : nil)
    dense = json["modules_to_not_convert"]?.array?.compactMap(\.string) ?? []
  }

  public var json: JSON {
    [
      "quant_method": "awq", "bits": 4, "group_size": JSON(layout.groupSize ?? -1),
      "zero_point": true, "version": "gemm",
      "modules_to_not_convert": dense.isEmpty ? nil : .array(dense.map { JSON($0) }),
    ]
  }
}
