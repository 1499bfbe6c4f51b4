package import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// How a row's most probable tokens are stored: about 14 bits each instead of 64.
///
/// The gap g between a log-probability and the row's largest is kept as the integer nearest to
/// `resolution · √g`: fine where probability is, coarse far down. Its error is at most
/// √g / resolution + 1 / (4 · resolution²) nats. Codes rise along the row and are stored as
/// differences; ids of equal code need no order and are stored as a set. The mass of all other tokens
/// is kept apart, and what is read is scaled so that all adds up to one.
package struct TopRowCode: Sendable {
  package let k: Int
  package let vocabularySize: Int
  /// Codes for the first nat.
  package let resolution: Int

  package init(k: Int, vocabularySize: Int, resolution: Int) {
    precondition(k >= 1 && k <= vocabularySize && resolution >= 1)
    self.k = k
    self.vocabularySize = vocabularySize
    self.resolution = resolution
  }

  /// Gaps beyond are as good as this: e^−196 is below what float32 holds.
  private static let largestGap = 196.0
  private static let noTail = UInt16.max
  private static let tailSteps = 2048.0
  private static let parameterBits = 3

  /// - Parameter logits: one row, before any softmax.
  /// - Returns: nil for a row with an infinity or NaN.
  func encode(_ logits: UnsafePointer<Float>) -> [UInt8]? {
    var selection = TopSelection(logits, count: vocabularySize, k: k)
    guard selection.isFinite else { return nil }
    let codes = selection.gaps.map {
      Int((Double(resolution) * min($0, Self.largestGap).squareRoot()).rounded())
    }
    var writer = BitWriter()
    writer.write(Int(tailCode(selection.logTail)), bits: 16)
    let steps = (1..<k).map { codes[$0] - codes[$0 - 1] }
    let parameters = 0..<(1 << Self.parameterBits)
    func bits(_ parameter: Int) -> Int {
      steps.reduce(0) { $0 + ($1 >> parameter) + 1 + parameter }
    }
    let parameter = parameters.min { bits($0) < bits($1) } ?? 0
    writer.write(parameter, bits: Self.parameterBits)
    for step in steps { writer.writeRice(step, parameter: parameter) }
    forEachGroup(codes) { group in
      selection.ids[group].sort()
      writer.writeRising(selection.ids[group], in: 0...(vocabularySize - 1))
    }
    return writer.finish()
  }

  /// - Parameters:
  ///   - ids: `k` of them, most probable first.
  ///   - logProbabilities: `k` of them.
  /// - Returns: whether the bytes hold a whole row.
  func decode(
    _ bytes: UnsafeRawBufferPointer, ids: UnsafeMutablePointer<Int32>,
    logProbabilities: UnsafeMutablePointer<Float>
  ) -> Bool {
    var reader = BitReader(bytes)
    let tail = reader.read(bits: 16)
    let parameter = reader.read(bits: Self.parameterBits)
    var codes = [Int](repeating: 0, count: k)
    for index in 1..<k { codes[index] = codes[index - 1] + reader.readRice(parameter: parameter) }
    forEachGroup(codes) { group in
      reader.readRising(
        into: UnsafeMutableBufferPointer(start: ids + group.lowerBound, count: group.count),
        in: 0...(vocabularySize - 1))
    }
    let gaps = codes.map { code in
      let root = Double(code) / Double(resolution)
      return root * root
    }
    let kept = gaps.reduce(0) { $0 + exp(-$1) }
    let mass = tail == Int(Self.noTail) ? 1 : 1 - exp(-Double(tail) / Self.tailSteps)
    // A tail of all there is leaves nothing to share: log 0 would make every loss infinite.
    let shift = log(max(mass, 1e-9)) - log(kept)
    for index in 0..<k { logProbabilities[index] = Float(shift - gaps[index]) }
    return !reader.overran
  }

  private func tailCode(_ logTail: Double) -> UInt16 {
    guard logTail.isFinite else { return Self.noTail }
    return UInt16(min(max((-logTail * Self.tailSteps).rounded(), 0), Double(Self.noTail - 1)))
  }

  /// Runs of equal codes.
  private func forEachGroup(_ codes: [Int], _ body: (Range<Int>) -> Void) {
    var start = 0
    while start < k {
      var end = start + 1
      while end < k, codes[end] == codes[start] { end += 1 }
      body(start..<end)
      start = end
    }
  }

  /// - Parameter logits: `[rows, vocabulary]`
  /// - Returns: each row's bytes; nil for a row with an infinity or NaN.
  package func encode(_ logits: Tensor) -> [[UInt8]?] {
    let (base, columns) = (Unshared(logits.floats), logits.columns)
    return withExtendedLifetime(logits) {
      Parallel.map(logits.rows) { encode(base.value + $0 * columns) }
    }
  }
}

extension TopRowCode {
  /// One row; nil when the bytes do not hold a whole one.
  package func decode(_ bytes: [UInt8]) -> TopProbabilities? {
    var ids = [Int32](repeating: 0, count: k)
    var logProbabilities = [Float](repeating: 0, count: k)
    let isWhole = ids.withUnsafeMutableBufferPointer { ids in
      logProbabilities.withUnsafeMutableBufferPointer { logProbabilities in
        guard let ids = ids.baseAddress, let logProbabilities = logProbabilities.baseAddress
        else { return false }
        return bytes.withUnsafeBytes { decode($0, ids: ids, logProbabilities: logProbabilities) }
      }
    }
    guard isWhole else { return nil }
    return TopProbabilities(k: k, ids: ids, logProbabilities: logProbabilities)
  }
}
