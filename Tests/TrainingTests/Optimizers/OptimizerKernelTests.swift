import CKernels
import Foundation
import Testing

/// Every kernel against its plain twin in double, at every length around the widths of vectors, and
/// from addresses that are no multiple of four.
@Suite struct OptimizerKernelTests {
  static let tails = Array(0...67) + [255, 256, 257, 1000]

  /// Runs a kernel on `arrays` copied one byte off alignment, and gives back what became of them.
  private func changed(
    _ arrays: [[Float]], _ kernel: ([UnsafeMutablePointer<Float>]) -> Void
  ) -> [[Float]] {
    var memory = arrays.map { array in
      [0] + array.withUnsafeBytes { Array($0) } + [0, 0, 0, 0]
    }
    var pointers: [UnsafeMutableRawPointer] = []
    for (i, bytes) in memory.enumerated() {
      let copy = UnsafeMutableRawPointer.allocate(byteCount: bytes.count, alignment: 64)
      copy.copyMemory(from: memory[i], byteCount: bytes.count)
      pointers.append(copy)
    }
    kernel(pointers.map { ($0 + 1).assumingMemoryBound(to: Float.self) })
    for (i, pointer) in pointers.enumerated() {
      memory[i] = Array(UnsafeRawBufferPointer(start: pointer, count: memory[i].count))
      pointer.deallocate()
    }
    return zip(arrays, memory).map { array, bytes in
      bytes.withUnsafeBytes { raw in
        array.indices.map { raw.loadUnaligned(fromByteOffset: 1 + 4 * $0, as: Float.self) }
      }
    }
  }

  private func compare(
    _ arrays: Int, _ fast: ([UnsafeMutablePointer<Float>], Int) -> Void,
    _ reference: ([UnsafeMutablePointer<Float>], Int) -> Void
  ) {
    var numbers = OptimizerNumbers(61)
    for count in Self.tails {
      // The last array may hold squares.
      var inputs = (0..<arrays).map { _ in numbers.floats(count) }
      inputs[arrays - 1] = inputs[arrays - 1].map(abs)
      let results = changed(inputs) { fast($0, count) }
      let exact = changed(inputs) { reference($0, count) }
      for (result, exact) in zip(results, exact) {
        for (a, b) in zip(result, exact) {
          #expect(abs(a - b) <= 4e-7 * max(1, abs(b)), "\(count) elements")
        }
      }
    }
  }

  @Test func adamW() {
    var s = pare_adamw_step(
      decay: 0.99, beta1_rest: 0.1, beta2: 0.95, beta2_rest: 0.05, step_size: 0.01,
      correction: 0.3, epsilon: 1e-8, gradient_factor: 0.7)
    compare(
      4, { pare_adamw(&s, $0[0], $0[1], $0[2], $0[3], $1) },
      { pare_adamw_reference(&s, $0[0], $0[1], $0[2], $0[3], $1) })
  }

  @Test(arguments: [0, 1]) func sgd(nesterov: Int32) {
    var s = pare_sgd_step(
      rate: 0.1, decay: 0.02, momentum: 0.9, arriving: 0.8, nesterov: nesterov,
      gradient_factor: 0.7)
    compare(
      3, { pare_sgd(&s, $0[0], $0[1], $0[2], $1) },
      { pare_sgd_reference(&s, $0[0], $0[1], $0[2], $1) })
    compare(
      2, { pare_sgd(&s, $0[0], $0[1], nil, $1) },
      { pare_sgd_reference(&s, $0[0], $0[1], nil, $1) })
  }

  @Test func lion() {
    var s = pare_lion_step(
      rate: 0.01, decay: 0.99, beta1: 0.9, beta1_rest: 0.1, beta2: 0.98, beta2_rest: 0.02,
      gradient_factor: 0.7)
    compare(
      3, { pare_lion(&s, $0[0], $0[1], $0[2], $1) },
      { pare_lion_reference(&s, $0[0], $0[1], $0[2], $1) })
    var (g, w, m): ([Float], [Float], [Float]) = ([0, -0.0], [1, 1], [0, 0])
    pare_lion(&s, &g, &w, &m, 2)
    #expect(w == [0.99, 0.99], "no step without a sign")
  }

  @Test(arguments: [0, 1]) func muonMomentum(nesterov: Int32) {
    var s = pare_muon_step(rest: 0.05, nesterov: nesterov, gradient_factor: 0.7)
    compare(
      3, { pare_muon_momentum(&s, $0[0], $0[1], $0[2], $1) },
      { pare_muon_momentum_reference(&s, $0[0], $0[1], $0[2], $1) })
  }

  @Test func sumsAndAverages() {
    compare(
      2, { pare_scaled_add(0.9, -0.3, $0[0], $0[1], $1) },
      { pare_scaled_add_reference(0.9, -0.3, $0[0], $0[1], $1) })
    compare(
      2, { pare_average(0.1, $0[0], $0[1], $1) },
      { pare_average_reference(0.1, $0[0], $0[1], $1) })
    var numbers = OptimizerNumbers(62)
    for count in Self.tails {
      let x = numbers.floats(count, scale: 1e18)
      let exact = pare_sum_of_squares_reference(x, count)
      #expect(abs(pare_sum_of_squares(x, count) - exact) <= 1e-14 * exact)
      var clamped = x
      pare_clamp(x, 1e17, &clamped, count)
      #expect(clamped == x.map { min(max($0, -1e17), 1e17) })
    }
    for bad in [Float.nan, .infinity, -.infinity] {
      for place in 0..<40 {
        var x = [Float](repeating: 3e38, count: 40)
        #expect(pare_sum_of_squares(x, 40).isFinite)
        x[place] = bad
        #expect(!pare_sum_of_squares(x, 40).isFinite)
      }
    }
  }

  @Test func randomRoundingIsTheReferencesAndIndependentOfPieces() {
    var numbers = OptimizerNumbers(63)
    let edges: [Float] = [
      0, -0.0, 1, -1, .nan, .infinity, -.infinity, .leastNonzeroMagnitude,
      Float(bitPattern: 0x8000_5000), .greatestFiniteMagnitude,
    ]
    for count in Self.tails {
      let x = Array((edges + numbers.floats(count)).prefix(count))
      for first: UInt64 in [0, 12345, 0xffff_ffe0] {
        var fast = [UInt16](repeating: 0, count: count), plain = fast, pieces = fast
        pare_f32_to_bf16_stochastic(x, 0x1234_5678_9abc_def0, first, &fast, count)
        pare_f32_to_bf16_stochastic_reference(x, 0x1234_5678_9abc_def0, first, &plain, count)
        #expect(fast == plain)
        let half = count / 2
        x.withUnsafeBufferPointer { x in
          pieces.withUnsafeMutableBufferPointer { target in
            guard let x = x.baseAddress, let target = target.baseAddress else { return }
            for (start, length) in [(half, count - half), (0, half)] {
              pare_f32_to_bf16_stochastic(
                x + start, 0x1234_5678_9abc_def0, first + UInt64(start), target + start, length)
            }
          }
        }
        #expect(pieces == fast)
      }
    }
  }

  @Test func randomRoundingIsRightOnAverage() {
    // 1 + 0.3 of a bfloat16 step: up three times of ten; five standard deviations.
    let count = 100_000
    let x = [Float](repeating: 1 + 0.3 / 128, count: count)
    var halves = [UInt16](repeating: 0, count: count)
    for key: UInt64 in [0, 1, 2, 1 << 32] {
      pare_f32_to_bf16_stochastic(x, key, 0, &halves, count)
      #expect(halves.allSatisfy { $0 == 0x3f80 || $0 == 0x3f81 })
      let share = Double(halves.filter { $0 == 0x3f81 }.count) / Double(count)
      #expect(abs(share - 0.3) < 5 * (0.21 / Double(count)).squareRoot())
      // Neighbours are independent: both up 9 of 100 times.
      let both = zip(halves, halves.dropFirst()).filter { $0 == 0x3f81 && $1 == 0x3f81 }.count
      #expect(abs(Double(both) / Double(count) - 0.09) < 6 * (0.09 / Double(count)).squareRoot())
    }
  }
}
