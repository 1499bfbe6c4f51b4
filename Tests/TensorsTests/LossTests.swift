import CKernels
import Testing

@Test func crossEntropyAgreesWithDoubleAlsoInTheLogitsOwnMemory() {
  var numbers = TestNumbers(12)
  for count in tails where count > 0 {
    let logits = numbers.floats(count, scale: 8)
    let target = count * 2 / 3
    var (apart, exact) = ([Float](repeating: 0, count: count), [Float](repeating: 0, count: count))
    var inPlace = logits
    let losses = [
      pare_cross_entropy(logits, count, target, 0.3, &apart),
      inPlace.withUnsafeMutableBufferPointer {
        pare_cross_entropy($0.baseAddress, count, target, 0.3, $0.baseAddress)
      },
      pare_cross_entropy(logits, count, target, 0.3, nil),
    ]
    let expected = pare_cross_entropy_ref(logits, count, target, 0.3, &exact)
    for loss in losses { #expect(abs(loss - expected) < 2e-6 * (1 + abs(expected)), "\(count)") }
    #expect(apart == inPlace)
    for (x, y) in zip(apart, exact) { #expect(abs(x - y) < 1e-6) }
  }
}
