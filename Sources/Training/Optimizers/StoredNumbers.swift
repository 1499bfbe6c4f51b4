import CKernels
import Tensors

/// float32 numbers, one for each element of a parameter, in whatever form memory holds them: kernels
/// see float32 strips.
///
/// `@unchecked Sendable`: pieces of a step touch elements of their own, in whole blocks.
struct StoredNumbers: @unchecked Sendable {
  private enum Form {
    case floats(UnsafeMutablePointer<Float>)
    /// float32 numbers that are changed, and bfloat16 ones that follow them.
    case mirrored(UnsafeMutablePointer<Float>, halves: UnsafeMutableRawPointer)
    /// bfloat16, rounded at random.
    case halves(UnsafeMutableRawPointer)
    case codes(UnsafeMutablePointer<UInt8>, scales: UnsafeMutablePointer<Float>, isSigned: Bool)
  }

  private let form: Form
  /// What belongs to an optimizer's state, by the ends of their names.
  let tensors: [(suffix: String, tensor: Tensor)]
  /// Keeps memory that is not in `tensors`.
  private let owner: Tensor?

  /// Elements that fit the first-level cache with all their companions; whole blocks of codes.
  static let stripLength = 4 * Int(PARE_DYNAMIC_BLOCK)
  /// Elements per piece of parallel work; whole strips.
  static let pieceSize = 1 << 15

  /// A parameter's numbers: the parameter itself, or a float32 copy that it follows.
  init(_ parameter: Parameter, _ options: OptimizerOptions) {
    owner = parameter.tensor
    if parameter.tensor.dtype == .float32 {
      form = .floats(parameter.mutableFloats)
      tensors = []
    } else if options.keepsMasterCopies {
      let copy = parameter.tensor.detached.widened()
      form = .mirrored(UnsafeMutablePointer(mutating: copy.floats), halves: parameter.mutableBytes)
      tensors = [("", copy)]
    } else {
      form = .halves(parameter.mutableBytes)
      tensors = []
    }
  }

  /// A moment, at first zero.
  init(_ slot: StateSlot, shape: [Int], _ options: OptimizerOptions) {
    let count = shape.reduce(1, *)
    owner = nil
    if slot.isEightBit(elements: count, options) {
      let zeroCode: UInt8 = slot.isSigned ? 127 : 0
      let codes = Tensor(dtype: .uint8, shape: shape) {
        _ = $0.initializeMemory(as: UInt8.self, repeating: zeroCode)
      }
      let scales = Tensor.zeros([StateSlot.blocks(elements: count)])
      form = .codes(
        UnsafeMutableRawPointer(mutating: codes.rawPointer).assumingMemoryBound(to: UInt8.self),
        scales: UnsafeMutablePointer(mutating: scales.floats), isSigned: slot.isSigned)
      tensors = [("", codes), ("_scale", scales)]
    } else {
      let numbers = Tensor.zeros(shape)
      form = .floats(UnsafeMutablePointer(mutating: numbers.floats))
      tensors = [("", numbers)]
    }
  }

  /// Whether kernels work on the memory itself.
  var isDirect: Bool {
    switch form {
    case .floats, .mirrored: true
    case .halves, .codes: false
    }
  }

  /// Elements `range` as float32: where they lie, or in `scratch`.
  func borrow(_ range: Range<Int>, _ scratch: UnsafeMutablePointer<Float>)
    -> UnsafeMutablePointer<Float>
  {
    let first = range.lowerBound
    switch form {
    case .floats(let base), .mirrored(let base, _): return base + first
    case .halves(let base): pare_bf16_to_f32(base + 2 * first, scratch, range.count)
    case .codes(let codes, let scales, let isSigned):
      pare_dynamic_decode(
        isSigned ? 1 : 0, codes + first, scales + first / Int(PARE_DYNAMIC_BLOCK), scratch,
        range.count)
    }
    return scratch
  }

  /// Keeps what became of borrowed elements.
  /// - Parameter key: of random rounding
  func giveBack(_ range: Range<Int>, _ numbers: UnsafePointer<Float>, key: UInt64) {
    let first = range.lowerBound
    switch form {
    case .floats: break
    case .mirrored(_, let halves): pare_f32_to_bf16(numbers, halves + 2 * first, range.count)
    case .halves(let base):
      pare_f32_to_bf16_stochastic(numbers, key, UInt64(first), base + 2 * first, range.count)
    case .codes(let codes, let scales, let isSigned):
      pare_dynamic_encode(
        isSigned ? 1 : 0, numbers, codes + first, scales + first / Int(PARE_DYNAMIC_BLOCK),
        range.count)
    }
  }
}

/// One quantity that an optimizer keeps for each element.
struct StateSlot: Sendable {
  let name: String
  /// Whether it may be below zero.
  let isSigned: Bool

  /// Below this many elements a parameter's moments stay float32.
  private static let eightBitMinimum = 4096

  static func blocks(elements: Int) -> Int {
    (elements + Int(PARE_DYNAMIC_BLOCK) - 1) / Int(PARE_DYNAMIC_BLOCK)
  }

  func isEightBit(elements: Int, _ options: OptimizerOptions) -> Bool {
    options.usesEightBitState && elements >= Self.eightBitMinimum
  }

  func byteCount(elements: Int, _ options: OptimizerOptions) -> Int {
    isEightBit(elements: elements, options)
      ? elements + 4 * Self.blocks(elements: elements) : 4 * elements
  }
}

/// Key of one parameter's random rounding in one step: the SplitMix64 finalizer over all three.
func roundingKey(seed: UInt64, step: Int, parameter: Int) -> UInt64 {
  func mixed(_ x: UInt64) -> UInt64 {
    var z = x &+ 0x9e37_79b9_7f4a_7c15
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
  return mixed(mixed(mixed(seed) ^ UInt64(step)) ^ UInt64(parameter))
}
