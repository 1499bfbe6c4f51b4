#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension TemplateRenderer {
  func call(
    _ function: TemplateFunction, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    switch function {
    case .raiseException:
      let message = try bind(arguments, ["message"], to: "raise_exception")[0]
      throw .refused(line: line, message: String(decoding: message?.text ?? [], as: UTF8.self))
    case .formattedTime:
      let format = try bind(arguments, ["format"], to: "strftime_now")[0] ?? .null
      guard let format = format.bytes else { throw wrong("strftime_now needs a format") }
      return .string(try formattedTime(format))
    case .range: return .list(try range(arguments))
    case .namespace:
      let namespace = TemplateNamespace()
      for (name, value) in try members(arguments) {
        guard !name.hasPrefix("_") else {
          throw .forbidden(line: line, problem: "setting \"\(name)\" of a namespace")
        }
        try checkStorable(value)
        namespace.attributes[name] = value
      }
      return .namespace(namespace)
    case .dict:
      var dictionary = TemplateDictionary()
      for (name, value) in try members(arguments) { dictionary[.text(name)] = value }
      try checkStorable(.dictionary(dictionary))
      return .dictionary(dictionary)
    }
  }

  /// `dict(mapping or pairs, name=value)`
  private func members(_ arguments: Arguments) throws(TemplateError) -> [(String, Value)] {
    var members: [(String, Value)] = []
    guard arguments.positional.count < 2 else { throw wrong("one mapping is enough") }
    if case .dictionary(let dictionary)? = arguments.positional.first {
      for (key, value) in zip(dictionary.keys, dictionary.values) {
        members.append((String(decoding: key.text, as: UTF8.self), value))
      }
    } else if let pairs = arguments.positional.first {
      for pair in try iterated(pairs) {
        let parts = try iterated(pair)
        guard parts.count == 2 else { throw wrong("a pair of key and value is expected") }
        members.append((String(decoding: parts[0].text, as: UTF8.self), parts[1]))
      }
    }
    return members + arguments.named.map { ($0.name, $0.value) }
  }

  private func range(_ arguments: Arguments) throws(TemplateError) -> [Value] {
    var numbers: [Int] = []
    for value in arguments.positional {
      guard let number = value.integer else {
        throw missing(value) ?? wrong("range needs whole numbers, not a \(value.typeName)")
      }
      numbers.append(number)
    }
    guard (1...3).contains(numbers.count), arguments.named.isEmpty else {
      throw wrong("range takes one to three numbers")
    }
    let step = numbers.count > 2 ? numbers[2] : 1
    guard step != 0 else { throw wrong("a range's step cannot be zero") }
    let (first, end) = numbers.count == 1 ? (0, numbers[0]) : (numbers[0], numbers[1])
    var values: [Value] = []
    for number in stride(from: first, to: end, by: step) {
      guard values.count < Self.rangeLimit else {
        throw .limitExceeded(line: line, limit: "a range of \(Self.rangeLimit)")
      }
      values.append(.integer(number))
    }
    try charge(values.count)
    return values
  }

  private func formattedTime(_ format: [UInt8]) throws(TemplateError) -> [UInt8] {
    var moment = time_t(time ?? Int(presentTime()))
    var parts = tm()
    localtime_r(&moment, &parts)
    guard format.count < 1000, !format.contains(0) else { throw wrong("the format is too long") }
    guard !format.isEmpty else { return [] }
    var buffer = [CChar](repeating: 0, count: 16 * format.count + 64)
    let count = format.withUnsafeBufferPointer { format in
      (Array(format.map { CChar(bitPattern: $0) }) + [0]).withUnsafeBufferPointer {
        $0.baseAddress.map { strftime(&buffer, buffer.count, $0, &parts) } ?? 0
      }
    }
    return buffer[..<count].map { UInt8(bitPattern: $0) }
  }

  /// Values by parameter, `nil` where nothing was given.
  func bind(
    _ arguments: Arguments, _ names: [String], to function: String
  ) throws(TemplateError) -> [Value?] {
    guard arguments.positional.count <= names.count else {
      throw wrong("\"\(function)\" takes at most \(names.count) arguments")
    }
    var values: [Value?] = Array(repeating: nil, count: names.count)
    for (index, value) in arguments.positional.enumerated() { values[index] = value }
    for (name, value) in arguments.named {
      guard let index = names.firstIndex(of: name), values[index] == nil else {
        throw wrong("\"\(function)\" takes no argument \"\(name)\"")
      }
      values[index] = value
    }
    return values
  }

  func integer(_ value: Value?, default initial: Int) throws(TemplateError) -> Int {
    guard let value, value != .null else { return initial }
    guard let number = value.integer else {
      throw missing(value) ?? wrong("a whole number is expected, found a \(value.typeName)")
    }
    return number
  }

  func string(_ value: Value?) throws(TemplateError) -> [UInt8]? {
    guard let value, value != .null else { return nil }
    guard let bytes = value.bytes else {
      throw missing(value) ?? wrong("text is expected, found a \(value.typeName)")
    }
    return bytes
  }
}

private func presentTime() -> time_t { time(nil) }
