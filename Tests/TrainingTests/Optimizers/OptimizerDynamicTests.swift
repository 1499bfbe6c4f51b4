import CKernels
import Foundation
import Testing

/// 8-bit blocks with the dynamic code book (Dettmers et al. 2022, section 2.1).
@Suite struct OptimizerDynamicTests {
  /// The book by its bits: after the sign, z zeros are the exponent 10^-z, a one ends them, and the
  /// bits that are left choose the middle of one of 2^bits parts of [0.1, 1].
  static func book(isSigned: Bool) -> [Double] {
    var numbers: [Double] = [0, 1]
    let width = isSigned ? 7 : 8
    for zeros in 0..<7 {
      let parts = 1 << (width - 1 - zeros)
      for part in 0..<parts {
        let low = 0.1 + 0.9 * Double(part) / Double(parts)
        let high = 0.1 + 0.9 * Double(part + 1) / Double(parts)
        let number = (low + high) / 2 * pow(10, -Double(zeros))
        numbers += isSigned ? [number, -number] : [number]
      }
    }
    return numbers.sorted()
  }

  @Test(arguments: [true, false]) func theBookIsTheDefinitions(isSigned: Bool) {
    let expected = Self.book(isSigned: isSigned)
    let book = UnsafeBufferPointer(start: pare_dynamic_book(isSigned ? 1 : 0), count: 256)
    #expect(expected.count == 256)
    for (a, b) in zip(book, expected) { #expect(abs(Double(a) - b) <= 1e-7 * abs(b)) }
    #expect(book[isSigned ? 127 : 0] == 0)
  }

  @Test(arguments: [true, false]) func everyNumberGetsTheNearestOfTheBook(isSigned: Bool) {
    let book = Self.book(isSigned: isSigned)
    var numbers = OptimizerNumbers(71)
    for count in Array(0...67) + [255, 256, 257, 511, 512, 513, 1000] {
      var x = numbers.floats(count, scale: 3e-3)
      if !isSigned { x = x.map(abs) }
      if count > 7 { x[7] = 0 }
      let blocks = (count + 255) / 256
      var codes = [UInt8](repeating: 9, count: count), plain = codes
      var scales = [Float](repeating: 9, count: blocks), plainScales = scales
      pare_dynamic_encode(isSigned ? 1 : 0, x, &codes, &scales, count)
      pare_dynamic_encode_reference(isSigned ? 1 : 0, x, &plain, &plainScales, count)
      #expect(codes == plain && scales == plainScales)
      var decoded = x
      pare_dynamic_decode(isSigned ? 1 : 0, codes, scales, &decoded, count)
      for i in 0..<count {
        let scale = Double(scales[i / 256])
        let block = x[(i / 256 * 256)..<min(count, i / 256 * 256 + 256)]
        #expect(scale == Double(block.map(abs).max() ?? 0))
        let best = book.map { abs($0 * scale - Double(x[i])) }.min() ?? 0
        let error = abs(Double(decoded[i]) - Double(x[i]))
        // Unsigned numbers above zero do not become zero, at the price of at most the smallest code.
        let isKept = !isSigned && x[i] > 0
        #expect(error <= (isKept ? max(best, 3.3e-7 * scale) : best) + 2e-7 * scale)
        if isKept { #expect(decoded[i] > 0) }
        if x[i] == 0 { #expect(decoded[i] == 0) }
        // The largest error there is: half of the widest gap, which the signed book has below -1.
        #expect(error <= (isSigned ? 0.00704 : 0.00353) * scale)
      }
      // Decoded numbers are encoded to themselves, where the scale is its block's largest.
      if !isSigned {
        pare_dynamic_encode(0, decoded, &plain, &plainScales, count)
        #expect(plain == codes)
      }
    }
  }

  @Test func everyFloatNearABoundaryIsCodedAsTheReferenceDoes() {
    for isSigned in [true, false] {
      let book = Self.book(isSigned: isSigned)
      var x: [Float] = []
      for (a, b) in zip(book, book.dropFirst()) {
        let middle = Float((a + b) / 2)
        x += [
          1, middle.nextDown, middle, middle.nextUp, Float(a), Float(a).nextUp,
          Float(bitPattern: 70_000), 1e-12,
        ]
      }
      if !isSigned { x = x.map(abs) }
      var codes = [UInt8](repeating: 0, count: x.count), plain = codes
      var scales = [Float](repeating: 0, count: x.count / 256 + 1), plainScales = scales
      pare_dynamic_encode(isSigned ? 1 : 0, x, &codes, &scales, x.count)
      pare_dynamic_encode_reference(isSigned ? 1 : 0, x, &plain, &plainScales, x.count)
      #expect(codes == plain)
    }
  }

  @Test func blocksOfZerosAndOfNumbersThatAreNotFinite() {
    for isSigned: Int32 in [0, 1] {
      for (value, isFinite) in [
        (Float(0), true), (.leastNonzeroMagnitude, true), (.nan, false), (.infinity, false),
      ] {
        var x = [Float](repeating: 0, count: 300)
        x[5] = value
        var codes = [UInt8](repeating: 0, count: 300), scales: [Float] = [0, 0]
        pare_dynamic_encode(isSigned, x, &codes, &scales, 300)
        pare_dynamic_decode(isSigned, codes, scales, &x, 300)
        if isFinite {
          #expect(x[5] == value && x[4] == 0)
        } else {
          #expect(!x[5].isFinite, "lost numbers must show")
        }
        #expect(x[256...].allSatisfy { $0 == 0 }, "other blocks keep theirs")
      }
    }
  }
}
