public import Codecs
public import Tensors

extension GGUFFile {
  /// How a type number's elements are kept: as numbers of a plain type, or as bytes of blocks.
  static func elementType(_ number: UInt32) -> (DType, GGUFType?)? {
    switch number {
    case 24: (.int8, nil)
    case 25: (.int16, nil)
    case 26: (.int32, nil)
    case 27: (.int64, nil)
    case 28: (.float64, nil)
    default: GGUFType(rawValue: number).map { $0.dtype.map { ($0, nil) } ?? (.uint8, $0) }
    }
  }

  /// Bytes of a tensor; nil where sizes overflow or rows are no whole number of blocks.
  static func byteCount(_ shape: [Int], _ dtype: DType, _ blockType: GGUFType?) -> Int? {
    guard let blockType else { return Shape.byteCount(shape, dtype) }
    guard let inputs = shape.last, inputs >= 0, inputs % blockType.blockLength == 0,
      Shape.byteCount(shape, .float32) != nil
    else { return nil }
    return Shape.byteCount(shape.dropLast() + [blockType.rowBytes(inputs: inputs)], .uint8)
  }

  /// The names of ggml's type numbers, for messages.
  static func typeName(_ number: UInt32) -> String {
    let names: [UInt32: String] = [
      4: "Q4_2 (retired)", 5: "Q4_3 (retired)", 9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS",
      17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S", 24: "I8", 25: "I16",
      26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 31: "Q4_0_4_4 (retired)",
      32: "Q4_0_4_8 (retired)", 33: "Q4_0_8_8 (retired)", 36: "IQ4_NL_4_4 (retired)",
      37: "IQ4_NL_4_8 (retired)", 38: "IQ4_NL_8_8 (retired)", 40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
    ]
    return GGUFType(rawValue: number)?.name ?? names[number] ?? "number \(number)"
  }
}

extension GGUFType {
  /// The plain element type; nil for blocks.
  public var dtype: DType? {
    switch self {
    case .f32: .float32
    case .f16: .float16
    case .bf16: .bfloat16
    default: nil
    }
  }
}
