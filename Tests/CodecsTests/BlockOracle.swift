import Codecs
import Foundation

/// One GGUF block read slowly in `Double` from the format's description (`reference/formats.md`
/// §6.3): for each weight its code and the values that every code would stand for.
struct BlockOracle {
  let type: GGUFType
  let bytes: [UInt8]

  /// Blocks of a run of bytes.
  static func blocks(_ type: GGUFType, _ bytes: some Collection<UInt8>) -> [BlockOracle] {
    let all = Array(bytes)
    return stride(from: 0, to: all.count, by: type.blockBytes).map {
      BlockOracle(type: type, bytes: Array(all[$0..<$0 + type.blockBytes]))
    }
  }

  static func decode(_ type: GGUFType, _ bytes: some Collection<UInt8>) -> [Double] {
    blocks(type, bytes).flatMap { block in (0..<type.blockLength).map(block.value) }
  }

  func value(_ i: Int) -> Double { grid(i)[code(i)] }

  /// A float16 taken apart by hand.
  func half(_ offset: Int) -> Double {
    let bits = Int(bytes[offset]) | Int(bytes[offset + 1]) << 8
    let exponent = bits >> 10 & 31
    let fraction = Double(bits & 1023) / 1024
    let sign: Double = bits >> 15 == 1 ? -1 : 1
    if exponent == 31 { return fraction == 0 ? sign * .infinity : .nan }
    return exponent == 0
      ? sign * fraction * pow(2, -14) : sign * (1 + fraction) * pow(2, Double(exponent - 15))
  }

  /// The code of weight i, as an index into its grid.
  func code(_ i: Int) -> Int {
    func bits(_ offset: Int, _ shift: Int, _ width: Int) -> Int {
      Int(bytes[offset]) >> shift & ((1 << width) - 1)
    }
    func nibble(_ start: Int) -> Int { bits(start + i % 16, i < 16 ? 0 : 4, 4) }
    switch type {
    case .q4_0, .iq4_nl: return nibble(2)
    case .mxfp4: return nibble(1)
    case .q4_1: return nibble(4)
    case .q5_0: return nibble(6) | bits(2 + i / 8, i % 8, 1) << 4
    case .q5_1: return nibble(8) | bits(4 + i / 8, i % 8, 1) << 4
    case .q8_0: return Int(Int8(bitPattern: bytes[2 + i])) + 128
    case .q2_K: return bits(16 + i / 128 * 32 + i % 32, i / 32 % 4 * 2, 2)
    case .tq2_0: return bits(i / 128 * 32 + i % 32, i / 32 % 4 * 2, 2)
    case .q3_K:
      return bits(32 + i / 128 * 32 + i % 32, i / 32 % 4 * 2, 2) | bits(i % 32, i / 32, 1) << 2
    case .q4_K: return bits(16 + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4)
    case .q5_K:
      return bits(48 + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4) | bits(16 + i % 32, i / 32, 1) << 4
    case .q6_K:
      let (half, l) = (i / 128, i % 32)
      let low = [(0, 0), (32, 0), (0, 4), (32, 4)][i / 32 % 4]
      return bits(64 * half + l + low.0, low.1, 4)
        | bits(128 + 32 * half + l, i / 32 % 4 * 2, 2) << 4
    case .iq4_xs: return bits(8 + i / 32 * 16 + i % 16, i % 32 < 16 ? 0 : 4, 4)
    case .tq1_0:
      let (offset, trit) =
        i < 160
        ? (i % 32, i / 32)
        : i < 240 ? (32 + (i - 160) % 16, (i - 160) / 16) : (48 + (i - 240) % 4, (i - 240) / 4)
      // The byte is a fraction of 256 in base 3: shift a trit out at a time.
      var fraction = Int(bytes[offset])
      for _ in 0..<trit { fraction = fraction * 3 % 256 }
      return fraction * 3 / 256
    case .f32, .f16, .bf16: return 0
    }
  }

  /// Scale and minimum of sub-block j as Q4_K and Q5_K pack them.
  private func scaleAndMinimum(_ j: Int) -> (Double, Double) {
    let s = bytes[4..<16].map(Int.init)
    return j < 4
      ? (Double(s[j] % 64), Double(s[j + 4] % 64))
      : (
        Double(s[j + 4] % 16 + s[j - 4] / 64 * 16), Double(s[j + 4] / 16 + s[j] / 64 * 16)
      )
  }

  /// What codes 0, 1, 2 … of weight i stand for.
  func grid(_ i: Int) -> [Double] {
    let iq4: [Double] = [
      -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
    ]
    func around(_ scale: Double, _ lowest: Int, _ count: Int) -> [Double] {
      (0..<count).map { scale * Double($0 + lowest) }
    }
    switch type {
    case .q4_0: return around(half(0), -8, 16)
    case .q4_1: return around(half(0), 0, 16).map { $0 + half(2) }
    case .q5_0: return around(half(0), -16, 32)
    case .q5_1: return around(half(0), 0, 32).map { $0 + half(2) }
    case .q8_0: return around(half(0), -128, 256)
    case .q2_K:
      let packed = Int(bytes[i / 16])
      return around(half(80) * Double(packed % 16), 0, 4).map {
        $0 - half(82) * Double(packed / 16)
      }
    case .q3_K:
      let k = i / 16
      let low = k < 8 ? Int(bytes[96 + k]) % 16 : Int(bytes[96 + k - 8]) / 16
      let high = Int(bytes[96 + 8 + k % 4]) >> (k / 4 * 2) & 3
      return around(half(108) * Double(low + 16 * high - 32), -4, 8)
    case .q4_K, .q5_K:
      let (scale, minimum) = scaleAndMinimum(i / 32)
      return around(half(0) * scale, 0, type == .q4_K ? 16 : 32).map { $0 - half(2) * minimum }
    case .q6_K:
      return around(half(208) * Double(Int8(bitPattern: bytes[192 + i / 16])), -32, 64)
    case .iq4_nl: return iq4.map { half(0) * $0 }
    case .iq4_xs:
      let k = i / 32
      let low = Int(bytes[4 + k / 2]) >> (k % 2 * 4) & 15
      let high = (Int(bytes[2]) | Int(bytes[3]) << 8) >> (2 * k) & 3
      return iq4.map { half(0) * Double(low + 16 * high - 32) * $0 }
    case .tq1_0: return around(half(52), -1, 3)
    case .tq2_0: return around(half(64), -1, 4)
    case .mxfp4:
      let magnitudes: [Double] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
      return (magnitudes + magnitudes.map { 0 - $0 }).map { $0 * pow(2, Double(bytes[0]) - 127) }
    case .f32, .f16, .bf16: return [.nan]
    }
  }

  /// Where the float16 scales lie.
  static func scaleOffsets(_ type: GGUFType) -> [Int] {
    switch type {
    case .q4_1, .q5_1, .q4_K, .q5_K: [0, 2]
    case .q2_K: [80, 82]
    case .q3_K: [108]
    case .q6_K: [208]
    case .tq1_0: [52]
    case .tq2_0: [64]
    case .f32, .f16, .bf16, .mxfp4: []
    default: [0]
    }
  }
}

/// The rules of the types whose bytes are fixed, weight by weight in the float32 arithmetic that the
/// format prescribes. Not Q2 … Q6_K and IQ4, whose scales are a choice.
enum BlockRule {
  static let types: [GGUFType] = [
    .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .tq1_0, .tq2_0, .mxfp4,
  ]

  static func encode(_ type: GGUFType, _ row: [Float]) -> [UInt8] {
    stride(from: 0, to: row.count, by: type.blockLength).flatMap {
      block(type, Array(row[$0..<$0 + type.blockLength]))
    }
  }

  private static func half(_ value: Float) -> [UInt8] {
    let bits = halfBits(value)
    return [UInt8(bits & 255), UInt8(bits >> 8)]
  }

  /// Nearest float16, ties to even, by counting units of its last place.
  private static func halfBits(_ value: Float) -> Int {
    let sign = value.sign == .minus ? 0x8000 : 0
    let size = Double(abs(value))
    guard size > 0 else { return sign }
    let exponent = max(Int(size.exponent), -14)
    let units = Int((size / pow(2, Double(exponent - 10))).rounded(.toNearestOrEven))
    return sign | (units + (exponent + 14) << 10)
  }

  private static func split(_ codes: [Int]) -> [UInt8] {
    (0..<16).map { UInt8(codes[$0] & 15 | (codes[$0 + 16] & 15) << 4) }
  }

  private static func fifth(_ codes: [Int]) -> [UInt8] {
    (0..<4).map { byte in
      UInt8((0..<8).reduce(0) { $0 | (codes[byte * 8 + $1] >> 4 & 1) << $1 })
    }
  }

  private static func block(_ type: GGUFType, _ x: [Float]) -> [UInt8] {
    var extreme: Float = 0
    for value in x where abs(value) > abs(extreme) { extreme = value }
    let largest = abs(extreme)
    func inverse(_ d: Float) -> Float { d == 0 ? 0 : 1 / d }
    switch type {
    case .q4_0, .q5_0:
      let low: Float = type == .q4_0 ? 8 : 16
      let d = extreme / -low
      let codes = x.map { min(Int(2 * low) - 1, Int($0 * inverse(d) + (low + 0.5))) }
      return half(d) + (type == .q5_0 ? fifth(codes) : []) + split(codes)
    case .q4_1, .q5_1:
      let top: Float = type == .q4_1 ? 15 : 31
      var (least, most) = (x[0], x[0])
      for value in x {
        if value < least { least = value }
        if value > most { most = value }
      }
      let d = (most - least) / top
      let codes = x.map { min(Int(top), Int(($0 - least) * inverse(d) + 0.5)) }
      return half(d) + half(least) + (type == .q5_1 ? fifth(codes) : []) + split(codes)
    case .q8_0:
      let d = largest / 127
      return half(d)
        + x.map {
          UInt8(bitPattern: Int8(($0 * inverse(d)).rounded(.toNearestOrAwayFromZero)))
        }
    case .mxfp4:
      let e = largest == 0 ? 0 : max(0, Int(log2f(largest).rounded(.down)) - 2 + 127)
      let grid = BlockOracle(type: type, bytes: [UInt8(e)]).grid(0)
      let codes = x.map { value in
        grid.indices.min { abs(grid[$0] - Double(value)) < abs(grid[$1] - Double(value)) } ?? 0
      }
      return [UInt8(e)] + split(codes)
    case .tq1_0, .tq2_0:
      let trits = x.map {
        Int(($0 * inverse(largest)).rounded(.toNearestOrAwayFromZero)) + 1
      }
      guard type == .tq1_0 else {
        return (0..<64).map { m in
          let start = m / 32 * 128 + m % 32
          return UInt8((0..<4).reduce(0) { $0 | trits[start + 32 * $1] << (2 * $1) })
        } + half(largest)
      }
      func byte(_ start: Int, _ step: Int, _ count: Int) -> UInt8 {
        let number = (0..<5).reduce(0) { $0 * 3 + ($1 < count ? trits[start + step * $1] : 0) }
        return UInt8((Double(number) * 256 / 243).rounded(.up))
      }
      return (0..<32).map { byte($0, 32, 5) } + (0..<16).map { byte(160 + $0, 16, 5) }
        + (0..<4).map { byte(240 + $0, 4, 4) } + half(largest)
    default: return []
    }
  }
}
