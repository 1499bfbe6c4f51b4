/// The four normal forms of Unicode Standard Annex 15, of Unicode 9: the version that the
/// normalizers of Hugging Face's `tokenizers` know, and so the one that models were trained behind.
public enum NormalForm: Sendable, CaseIterable {
  /// Canonical composition.
  case nfc
  /// Canonical decomposition.
  case nfd
  /// Compatibility decomposition, then canonical composition.
  case nfkc
  /// Compatibility decomposition.
  case nfkd

  /// The UTF-8 text in this form. Ill-formed bytes are read as U+FFFD.
  public func normalized(_ text: [UInt8]) -> [UInt8] {
    let stability = stability
    return text.withUnsafeBufferPointer { bytes -> [UInt8]? in
      var output: [UInt8] = []
      var copied = 0  // bytes before this are in the output
      var lastStable = 0  // where the last stable scalar starts
      var index = 0
      while index < bytes.count {
        if bytes[index] < 0x80 {
          lastStable = index
          index += 1
          continue
        }
        var (scalar, length) = Self.scalar(in: bytes, at: index)
        if stability.isStable(scalar) {
          lastStable = index
          index += length
          continue
        }
        // Only the last stable scalar and what follows it, up to the next one, may change.
        output.append(contentsOf: UnsafeBufferPointer(rebasing: bytes[copied..<lastStable]))
        var scalars: [UInt32] = []
        var position = lastStable
        while position < bytes.count {
          (scalar, length) = Self.scalar(in: bytes, at: position)
          if position > index, stability.isStable(scalar) { break }
          scalars.append(scalar)
          position += length
        }
        for scalar in transformed(scalars) { UTF8Sequence.append(scalar, to: &output) }
        copied = position
        index = position
        lastStable = position
      }
      if copied == 0 { return nil }
      output.append(contentsOf: UnsafeBufferPointer(rebasing: bytes[copied...]))
      return output
    } ?? text
  }

  private var composes: Bool { self == .nfc || self == .nfkc }
  private var isCompatible: Bool { self == .nfkc || self == .nfkd }

  private static func scalar(
    in bytes: UnsafeBufferPointer<UInt8>, at index: Int
  ) -> (UInt32, Int) {
    let length = UTF8Sequence.length(in: bytes, at: index)
    if length == 0 { return (0xFFFD, 1) }
    return (UTF8Sequence.scalar(in: bytes, at: index, length: length), length)
  }

  // MARK: The algorithm

  private func transformed(_ scalars: [UInt32]) -> [UInt32] {
    var decomposed: [UInt32] = []
    for scalar in scalars {
      UnicodeDecomposition.shared.append(scalar, isCompatible: isCompatible, to: &decomposed)
    }
    let classes = Self.reorder(&decomposed)
    return composes ? Self.composed(decomposed, classes) : decomposed
  }

  /// Sorts every run of combining marks by class, keeping the order within a class.
  private static func reorder(_ scalars: inout [UInt32]) -> [UInt8] {
    var classes = scalars.map { UnicodeDecomposition.combiningClass($0) }
    var start = 0
    while start < scalars.count {
      var end = start
      while end < scalars.count, classes[end] != 0 { end += 1 }
      if end - start > 1 {
        let order = (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) }
        scalars.replaceSubrange(start..<end, with: order.map { scalars[$0] })
        classes.replaceSubrange(start..<end, with: order.map { classes[$0] })
      }
      start = max(end, start + 1)
    }
    return classes
  }

  /// Joins each mark to the last starter when nothing between blocks it.
  private static func composed(_ scalars: [UInt32], _ classes: [UInt8]) -> [UInt32] {
    var output: [UInt32] = []
    var starter: Int?
    var lastClass: UInt8 = 0
    for (scalar, scalarClass) in zip(scalars, classes) {
      if let place = starter {
        let isAdjacent = place == output.count - 1
        if isAdjacent || (lastClass != 0 && lastClass < scalarClass),
          let composite = UnicodeDecomposition.shared.composite(output[place], scalar)
        {
          output[place] = composite
          continue
        }
      }
      if scalarClass == 0 { starter = output.count }
      lastClass = scalarClass
      output.append(scalar)
    }
    return output
  }

  // MARK: Quick check

  private static let stabilities = NormalForm.allCases.map {
    Stability(composes: $0.composes, isCompatible: $0.isCompatible)
  }

  private var stability: Stability {
    switch self {
    case .nfc: Self.stabilities[0]
    case .nfd: Self.stabilities[1]
    case .nfkc: Self.stabilities[2]
    case .nfkd: Self.stabilities[3]
    }
  }

  /// The starters that a form leaves alone and that never join what stands before them.
  private struct Stability {
    private var flags: [Bool]

    init(composes: Bool, isCompatible: Bool) {
      flags = (UInt32(0)..<0x30000).map { scalar in
        if UnicodeDecomposition.combiningClass(scalar) != 0 { return false }
        let table = UnicodeDecomposition.shared
        if composes, table.mayJoinPrevious(scalar) { return false }
        var decomposed: [UInt32] = []
        table.append(scalar, isCompatible: isCompatible, to: &decomposed)
        if decomposed == [scalar] { return true }
        return composes
          && NormalForm.composed(decomposed, decomposed.map(UnicodeDecomposition.combiningClass))
            == [scalar]
      }
    }

    @inline(__always)
    func isStable(_ scalar: UInt32) -> Bool { scalar >= 0x30000 || flags[Int(scalar)] }
  }
}
