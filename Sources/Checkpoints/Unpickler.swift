/// A reader of Python's pickle format that can build tables of tensors and nothing else.
///
/// A pickle is a program for a small stack machine; its `GLOBAL` and `REDUCE` instructions call any
/// Python function. Here only the names that `torch.save` needs to describe tensors are known, each
/// to a Swift value; every other name is refused where it is mentioned, before anything can use
/// it.
/// Instructions: CPython's `Lib/pickletools.py`, protocols 2 to 5 as far as `torch.save` uses them.
///
/// Compound values live in one array and refer to each other by index, so that neither deep nor
/// cyclic nesting can exhaust the stack when they are freed.
struct Unpickler {
  enum Value {
    case none, mark
    case bool(Bool)
    case integer(Int)
    case real(Double)
    case string(String)
    case global(Global)
    /// Index into `nodes`.
    case node(Int)
  }

  enum Node {
    case tuple([Value])
    case list([Value])
    case table([(key: Value, value: Value)])
    case storage(PickledStorage)
    case tensor(PickledTensor)
  }

  private let bytes: UnsafeRawBufferPointer
  let file: String
  private var position = 0
  private var stack: [Value] = []
  private var memo: [Int: Value] = [:]
  private(set) var nodes: [Node] = []

  /// Enough for a hundred thousand tensors, of seven nodes each, in about a hundred megabytes.
  private static let mostNodes = 1_000_000

  init(_ bytes: UnsafeRawBufferPointer, file: String) {
    self.bytes = bytes
    self.file = file
  }

  func wrong(_ problem: String) -> CheckpointError { .wrongPickle(file: file, problem: problem) }

  // MARK: The machine

  /// Runs the program and returns the value it leaves.
  mutating func run() throws(CheckpointError) -> Value {
    while true {
      let opcode = try byte()
      switch opcode {
      case 0x80:  // PROTO
        guard try 2...5 ~= byte() else { throw wrong("its pickle protocol is not known") }
      case 0x95: try skip(8)  // FRAME: only a hint for buffering
      case UInt8(ascii: "."):
        guard let result = stack.popLast() else { throw wrong("it ends without a value") }
        return result

      case UInt8(ascii: "N"): try push(.none)
      case 0x88: try push(.bool(true))
      case 0x89: try push(.bool(false))
      case UInt8(ascii: "K"): try push(.integer(Int(byte())))
      case UInt8(ascii: "M"): try push(.integer(Int(number(2))))
      case UInt8(ascii: "J"):
        try push(.integer(Int(Int32(truncatingIfNeeded: number(4)))))
      case 0x8a: try push(.integer(longInteger()))
      case UInt8(ascii: "G"):
        try push(.real(Double(bitPattern: number(8).byteSwapped)))
      case 0x8c: try push(.string(string(count: number(1))))
      case UInt8(ascii: "X"): try push(.string(string(count: number(4))))
      case 0x8d: try push(.string(string(count: number(8))))

      case UInt8(ascii: "c"):
        let module = try line()
        try push(.global(allowed(module, line())))
      case 0x93:  // STACK_GLOBAL
        guard case .string(let name) = try pop(), case .string(let module) = try pop() else {
          throw wrong("a name is not a string")
        }
        try push(.global(allowed(module, name)))

      case UInt8(ascii: "q"): try memo[Int(byte())] = top()
      case UInt8(ascii: "r"): try memo[Int(number(4))] = top()
      case 0x94: try memo[memo.count] = top()  // MEMOIZE
      case UInt8(ascii: "h"): try push(recall(Int(byte())))
      case UInt8(ascii: "j"): try push(recall(Int(number(4))))

      case UInt8(ascii: "("): try push(.mark)
      case UInt8(ascii: ")"): try push(node(.tuple([])))
      case UInt8(ascii: "]"): try push(node(.list([])))
      case UInt8(ascii: "}"): try push(node(.table([])))
      case UInt8(ascii: "t"): try push(node(.tuple(popToMark())))
      case 0x85...0x87: try push(node(.tuple(pop(count: Int(opcode) - 0x84))))
      case UInt8(ascii: "a"): try extendList([pop()])
      case UInt8(ascii: "e"): try extendList(popToMark())
      case UInt8(ascii: "s"): try extendTable(pop(count: 2))
      case UInt8(ascii: "u"): try extendTable(popToMark())

      case UInt8(ascii: "Q"): try push(node(.storage(storage(pop()))))  // BINPERSID
      case UInt8(ascii: "R"):
        let arguments = try pop()
        try push(call(pop(), arguments))
      case UInt8(ascii: "b"):
        // BUILD sets attributes; a state_dict carries version numbers as one. They are not tensors.
        _ = try pop()
        guard case .node(let index) = try top(), case .table = nodes[index] else {
          throw wrong("it sets attributes of something that is not a table")
        }
      default:
        throw wrong("it uses the pickle instruction 0x\(String(opcode, radix: 16))")
      }
    }
  }

  // MARK: The stack

  private mutating func push(_ value: Value) throws(CheckpointError) {
    guard stack.count < Self.mostNodes else { throw wrong("it is nested too deeply") }
    stack.append(value)
  }

  private mutating func pop() throws(CheckpointError) -> Value {
    guard let value = stack.popLast() else { throw wrong("it takes a value that is not there") }
    if case .mark = value { throw wrong("it takes a value that is not there") }
    return value
  }

  private mutating func pop(count: Int) throws(CheckpointError) -> [Value] {
    var values: [Value] = []
    for _ in 0..<count { values.append(try pop()) }
    return values.reversed()
  }

  private mutating func popToMark() throws(CheckpointError) -> [Value] {
    var values: [Value] = []
    while let value = stack.popLast() {
      if case .mark = value { return values.reversed() }
      values.append(value)
    }
    throw wrong("it takes a value that is not there")
  }

  private func top() throws(CheckpointError) -> Value {
    guard let value = stack.last else { throw wrong("it takes a value that is not there") }
    return value
  }

  private func recall(_ index: Int) throws(CheckpointError) -> Value {
    guard let value = memo[index] else { throw wrong("it recalls a value that was not stored") }
    return value
  }

  mutating func node(_ node: Node) throws(CheckpointError) -> Value {
    guard nodes.count < Self.mostNodes else { throw wrong("it holds too many values") }
    nodes.append(node)
    return .node(nodes.count - 1)
  }

  private mutating func extendList(_ values: [Value]) throws(CheckpointError) {
    guard case .node(let index) = try top(), case .list(var list) = nodes[index] else {
      throw wrong("it appends to something that is not a list")
    }
    nodes[index] = .list([])  // so that the list is not shared, and grows in place
    list.append(contentsOf: values)
    nodes[index] = .list(list)
  }

  private mutating func extendTable(_ values: [Value]) throws(CheckpointError) {
    guard case .node(let index) = try top(), case .table(var table) = nodes[index],
      values.count % 2 == 0
    else { throw wrong("it adds pairs to something that is not a table") }
    nodes[index] = .table([])
    for i in stride(from: 0, to: values.count, by: 2) { table.append((values[i], values[i + 1])) }
    nodes[index] = .table(table)
  }

  // MARK: Bytes

  private mutating func byte() throws(CheckpointError) -> UInt8 {
    guard position < bytes.count else { throw wrong("it is cut short") }
    defer { position += 1 }
    return bytes[position]
  }

  private mutating func skip(_ count: Int) throws(CheckpointError) {
    guard count <= bytes.count - position else { throw wrong("it is cut short") }
    position += count
  }

  /// A little-endian number.
  private mutating func number(_ count: Int) throws(CheckpointError) -> UInt64 {
    let start = position
    try skip(count)
    return (0..<count).reversed().reduce(0) { $0 << 8 | UInt64(bytes[start + $1]) }
  }

  /// LONG1: a count of bytes, then a little-endian two's complement number.
  private mutating func longInteger() throws(CheckpointError) -> Int {
    let count = Int(try byte())
    guard count <= 8 else { throw wrong("a number has more than 64 bits") }
    guard count > 0 else { return 0 }
    let unused = 64 - 8 * count
    return Int(truncatingIfNeeded: try number(count) << UInt64(unused)) >> unused
  }

  private mutating func string(count: UInt64) throws(CheckpointError) -> String {
    guard let count = Int(exactly: count) else { throw wrong("it is cut short") }
    let start = position
    try skip(count)
    guard let text = String(validating: bytes[start..<(start + count)], as: UTF8.self) else {
      throw wrong("a string is not UTF-8")
    }
    return text
  }

  /// Text up to a line end, as GLOBAL has its names.
  private mutating func line() throws(CheckpointError) -> String {
    let start = position
    while try byte() != UInt8(ascii: "\n") {
      guard position - start <= 1000 else { throw wrong("a name is too long") }
    }
    return String(decoding: bytes[start..<(position - 1)], as: UTF8.self)
  }
}
