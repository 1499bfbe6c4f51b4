import CKernels
import Tensors

/// How fast this machine reads memory: the limit of decoding, which reads every weight once a token.
public enum ReadBandwidth {
  /// Bytes per second that `Parallel.threads` threads read together from a buffer far larger than
  /// any cache: the best of `tries` passes, because whatever else the machine does only slows one.
  public static func measure(byteCount: Int = 512 << 20, tries: Int = 6) -> Double {
    let words = byteCount / 8
    let buffer = UnsafeMutablePointer<UInt64>.allocate(capacity: words)
    defer { buffer.deallocate() }
    buffer.initialize(repeating: 1, count: words)
    let shared = Unshared(UnsafePointer(buffer))
    let piece = 1 << 17
    let clock = ContinuousClock()
    var best = 0.0
    for _ in 0..<tries {
      let start = clock.now
      let sums = Parallel.map(words / piece) { index in
        pare_stream_sum(shared.value + index * piece, piece)
      }
      let seconds = (clock.now - start).inSeconds
      precondition(sums.reduce(0, &+) == UInt64(words / piece * piece))
      best = max(best, Double(words / piece * piece * 8) / seconds)
    }
    return best
  }
}
