/// The sizes of a student where they differ from its teacher's.
package struct StudentShape: Sendable, Equatable {
  package var layers: Int?
  package var hidden: Int?
  package var heads: Int?
  package var keyValueHeads: Int?
  package var intermediate: Int?

  package init(
    layers: Int? = nil, hidden: Int? = nil, heads: Int? = nil, keyValueHeads: Int? = nil,
    intermediate: Int? = nil
  ) {
    self.layers = layers
    self.hidden = hidden
    self.heads = heads
    self.keyValueHeads = keyValueHeads
    self.intermediate = intermediate
  }

  /// - Parameter text: such as `layers=4,hidden=128,heads=4,keyValueHeads=2,intermediate=256`, any of
  ///   them, in any order.
  /// - Throws: `badShape`.
  package init(parsing text: String) throws(DistillationError) {
    self.init()
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let sides = part.split(separator: "=", omittingEmptySubsequences: false)
        .map { String($0).trimmed }
      guard sides.count == 2 else {
        throw .badShape(text, problem: "\"\(part)\" is not a name, = and a number")
      }
      guard let path = Self.fields.first(where: { $0.name == sides[0] })?.path else {
        let known = Self.fields.map(\.name).joined(separator: ", ")
        throw .badShape(text, problem: "\"\(sides[0])\" is none of \(known)")
      }
      guard let value = Int(sides[1]), (1...(1 << 24)).contains(value) else {
        throw .badShape(text, problem: "\(sides[0]) must be a whole number from 1 to 2^24")
      }
      guard self[keyPath: path] == nil else {
        throw .badShape(text, problem: "\(sides[0]) is given twice")
      }
      self[keyPath: path] = value
    }
  }

  private static var fields: [(name: String, path: WritableKeyPath<StudentShape, Int?>)] {
    [
      ("layers", \.layers), ("hidden", \.hidden), ("heads", \.heads),
      ("keyValueHeads", \.keyValueHeads), ("intermediate", \.intermediate),
    ]
  }

  /// As it is parsed.
  package var description: String {
    Self.fields.compactMap { field in
      self[keyPath: field.path].map { "\(field.name)=\($0)" }
    }.joined(separator: ",")
  }

  /// Whether anything but the number of layers is stated.
  var statesWidth: Bool {
    hidden != nil || heads != nil || keyValueHeads != nil || intermediate != nil
  }
}

extension String {
  fileprivate var trimmed: String {
    String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
  }
}
