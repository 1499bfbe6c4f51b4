public import Codecs
import Tensors
public import Text

/// Matrices in forms that no public description of a quantized model has words for: sums, sparse
/// outliers, signs, ternary codes. Each module's `StoredForm` stands in `config.json`:
///
///     "quantization_config": {"quant_method": "pare",
///                             "config_groups": [{"form": {…}, "targets": [module, …]}, …]}
public struct FormConfiguration: Quantization {
  /// By the module's path as stored.
  public let forms: [(module: String, form: StoredForm)]
  private let byModule: [String: StoredForm]

  public init(_ forms: [(module: String, form: StoredForm)]) {
    self.forms = forms
    byModule = Dictionary(
      forms.map { ($0.module, $0.form) }, uniquingKeysWith: { first, _ in first })
  }

  /// - Throws: `ModelError.unsupportedQuantization`.
  init(_ json: JSON, path: String) throws(ModelError) {
    guard let groups = json["config_groups"]?.array else {
      throw .unsupportedQuantization(reason: "config_groups is missing", path: path)
    }
    var forms: [(module: String, form: StoredForm)] = []
    for group in groups {
      let form: StoredForm
      do {
        form = try StoredForm(group["form"] ?? .null)
      } catch {
        throw .unsupportedQuantization(reason: error.description, path: path)
      }
      for target in group["targets"]?.array?.compactMap(\.string) ?? [] {
        forms.append((target, form))
      }
    }
    self.init(forms)
  }

  public func layout(
    of module: String, className: String, isStored: (_ suffix: String) -> Bool
  ) -> (any MatrixLayout)? {
    byModule[module].map { FormLayout(form: $0, isStored: isStored) }
  }

  public var quantizationConfig: JSON {
    var groups: [(form: StoredForm, modules: [String])] = []
    for (module, form) in forms {
      if let index = groups.firstIndex(where: { $0.form == form }) {
        groups[index].modules.append(module)
      } else {
        groups.append((form, [module]))
      }
    }
    return [
      "quant_method": "pare",
      "config_groups": .array(
        groups.map {
          ["form": $0.form.json, "targets": .array($0.modules.map { JSON($0) })]
        }),
    ]
  }
}

/// What bitsandbytes writes for a model in 4 bits: a matrix's own tensors say that it is quantized.
public struct BitsAndBytesConfiguration: Quantization {
  public init() {}

  /// - Throws: `ModelError.unsupportedQuantization` for other than NF4.
  init(_ json: JSON, path: String) throws(ModelError) {
    guard json["load_in_4bit"]?.bool == true, json["bnb_4bit_quant_type"]?.string == "nf4" else {
      throw .unsupportedQuantization(reason: "bitsandbytes other than 4 bits nf4", path: path)
    }
  }

  public func layout(
    of module: String, className: String, isStored: (_ suffix: String) -> Bool
  ) -> (any MatrixLayout)? {
    isStored("weight.quant_state.bitsandbytes__nf4")
      ? FormLayout(form: .nf4, isStored: isStored) : nil
  }

  public var quantizationConfig: JSON {
    [
      "quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false,
      "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true,
      "bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8",
    ]
  }
}

/// A matrix in a stored form.
private struct FormLayout: MatrixLayout {
  let form: StoredForm
  let requiredSuffixes: [String]
  let componentSuffixes: [String]

  init(form: StoredForm, isStored: (String) -> Bool) {
    self.form = form
    // Sizes change no name.
    let components = form.components(outputs: 32, inputs: 32)
    requiredSuffixes = components.filter { !$0.isOptional }.map(\.suffix)
    componentSuffixes = components.map(\.suffix)
  }

  var bits: Int { form.codeBits }
  var summary: String { form.kind }

  func decode(components: [String: Tensor]) throws(CodecError) -> any StoredWeight {
    try form.decode(components)
  }
}
