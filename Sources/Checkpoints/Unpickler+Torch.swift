import Tensors

/// A run of numbers in the archive: `torch.save` stores each once, whatever the number of views.
struct PickledStorage {
  /// Name of the archive's entry below `data/`.
  let key: String
  let dtype: DType
  let count: Int
}

/// A view of a storage. Offset and strides count elements of `dtype`.
struct PickledTensor {
  let storage: PickledStorage
  let dtype: DType
  let offset: Int
  let shape: [Int]
  let strides: [Int]
}

/// The names a pickle may mention.
enum Global {
  case orderedDictionary
  case rebuildTensor, rebuildTensorWithDType, rebuildParameter
  case storage(DType)
  case dtype(DType)

  private static let known: [String: Global] = [
    "collections.OrderedDict": .orderedDictionary,
    "torch._utils._rebuild_tensor": .rebuildTensor,
    "torch._utils._rebuild_tensor_v2": .rebuildTensor,
    "torch._utils._rebuild_tensor_v3": .rebuildTensorWithDType,
    "torch._utils._rebuild_parameter": .rebuildParameter,
    "torch.DoubleStorage": .storage(.float64),
    "torch.FloatStorage": .storage(.float32),
    "torch.HalfStorage": .storage(.float16),
    "torch.BFloat16Storage": .storage(.bfloat16),
    "torch.LongStorage": .storage(.int64),
    "torch.IntStorage": .storage(.int32),
    "torch.ShortStorage": .storage(.int16),
    "torch.CharStorage": .storage(.int8),
    "torch.ByteStorage": .storage(.uint8),
    "torch.BoolStorage": .storage(.bool),
    "torch.UntypedStorage": .storage(.uint8),
    "torch.storage.UntypedStorage": .storage(.uint8),
    "torch.float64": .dtype(.float64),
    "torch.float32": .dtype(.float32),
    "torch.float16": .dtype(.float16),
    "torch.bfloat16": .dtype(.bfloat16),
    "torch.int64": .dtype(.int64),
    "torch.int32": .dtype(.int32),
    "torch.int16": .dtype(.int16),
    "torch.int8": .dtype(.int8),
    "torch.uint64": .dtype(.uint64),
    "torch.uint32": .dtype(.uint32),
    "torch.uint16": .dtype(.uint16),
    "torch.uint8": .dtype(.uint8),
    "torch.bool": .dtype(.bool),
    "torch.float8_e4m3fn": .dtype(.float8e4m3),
    "torch.float8_e5m2": .dtype(.float8e5m2),
    "torch.float8_e8m0fnu": .dtype(.float8e8m0),
  ]

  static func named(_ module: String, _ name: String) -> Global? { known["\(module).\(name)"] }
}

extension Unpickler {
  func allowed(_ module: String, _ name: String) throws(CheckpointError) -> Global {
    if let global = Global.named(module, name) { return global }
    // A hostile name must not be able to move the cursor of the terminal it is shown on.
    let printable = "\(module).\(name)".unicodeScalars.prefix(120).map { scalar in
      scalar.properties.generalCategory == .control ? "?" : Character(scalar)
    }
    throw .refusedGlobal(file: file, name: String(printable))
  }

  /// `("storage", torch.FloatStorage, key, device, element count)`
  func storage(_ identity: Value) throws(CheckpointError) -> PickledStorage {
    guard let parts = tuple(identity), parts.count == 5,
      case .string("storage") = parts[0], case .global(.storage(let dtype)) = parts[1],
      case .string(let key) = parts[2], case .integer(let count) = parts[4], count >= 0
    else { throw wrong("it refers to something that is not a storage") }
    return PickledStorage(key: key, dtype: dtype, count: count)
  }

  mutating func call(_ function: Value, _ arguments: Value) throws(CheckpointError) -> Value {
    guard case .global(let function) = function, let arguments = tuple(arguments) else {
      throw wrong("it calls something that is not a function")
    }
    switch function {
    case .orderedDictionary:
      guard arguments.isEmpty else { throw wrong("an OrderedDict is not made from nothing") }
      return try node(.table([]))
    case .rebuildTensor:
      return try node(.tensor(rebuildTensor(arguments, dtype: nil)))
    case .rebuildTensorWithDType:
      guard arguments.count >= 7, case .global(.dtype(let dtype)) = arguments[6] else {
        throw wrong("a tensor has no element type")
      }
      return try node(.tensor(rebuildTensor(arguments, dtype: dtype)))
    case .rebuildParameter:
      guard let first = arguments.first, case .node(let index) = first,
        case .tensor = nodes[index]
      else { throw wrong("a parameter is not a tensor") }
      return first
    case .storage, .dtype:
      throw wrong("it calls a storage or an element type")
    }
  }

  /// `(storage, offset, shape, strides, requires_grad, backward_hooks[, dtype][, metadata])`
  private func rebuildTensor(
    _ arguments: [Value], dtype: DType?
  ) throws(CheckpointError) -> PickledTensor {
    guard arguments.count >= 4, case .node(let index) = arguments[0],
      case .storage(let storage) = nodes[index], case .integer(let offset) = arguments[1],
      let shape = integers(arguments[2]), let strides = integers(arguments[3]),
      shape.count == strides.count
    else { throw wrong("a tensor's description is not complete") }
    // Metadata marks conjugated or negated views, whose stored numbers are not their values.
    let metadata = dtype == nil ? 6 : 7
    if arguments.count > metadata {
      switch arguments[metadata] {
      case .none: break
      case .node(let index):
        guard case .table(let pairs) = nodes[index], pairs.isEmpty else {
          throw wrong("a tensor is a conjugated or negated view")
        }
      default: throw wrong("a tensor's description is not complete")
      }
    }
    return PickledTensor(
      storage: storage, dtype: dtype ?? storage.dtype, offset: offset, shape: shape,
      strides: strides)
  }

  private func tuple(_ value: Value) -> [Value]? {
    guard case .node(let index) = value, case .tuple(let values) = nodes[index] else { return nil }
    return values
  }

  private func integers(_ value: Value) -> [Int]? {
    guard let values = tuple(value) else { return nil }
    var result: [Int] = []
    for case .integer(let number) in values { result.append(number) }
    return result.count == values.count ? result : nil
  }
}
