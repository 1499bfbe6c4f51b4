import CKernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A new file that is written in large pieces at stated offsets, and whose pages leave the memory
/// once they are on the disk: a file of any size is written in bounded memory.
package final class FileSink {
  package let path: String
  private var descriptor: Int32
  /// Small neighbouring writes gather here.
  private var gathered: [UInt8] = []
  private var gatheredStart = 0
  /// Ranges whose writing out was started and not yet waited for, oldest first.
  private var underWay: [Range<Int>] = []

  private static let pieceBytes = 4 << 20
  private static let piecesUnderWay = 8

  /// Creates the file, or empties it if it exists.
  package init(path: String) throws(CheckpointError) {
    // A limit on file sizes then ends in EFBIG, which we report, and not in a fatal signal.
    signal(SIGXFSZ, SIG_IGN)
    self.path = path
    descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw Files.unwritable(path, errno) }
  }

  package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(CheckpointError) {
    if offset != gatheredStart + gathered.count || gathered.count + bytes.count > Self.pieceBytes {
      try flush()
      gatheredStart = offset
    }
    if bytes.count < Self.pieceBytes / 4 {
      gathered.append(contentsOf: bytes)
      return
    }
    try flush()
    var start = 0
    while start < bytes.count {
      let end = min(start + Self.pieceBytes, bytes.count)
      try put(UnsafeRawBufferPointer(rebasing: bytes[start..<end]), at: offset + start)
      start = end
    }
    gatheredStart = offset + bytes.count
  }

  /// Everything written is on the disk when this returns; the file is closed.
  package func finish() throws(CheckpointError) {
    try flush()
    guard fsync(descriptor) == 0 else { throw Files.unwritable(path, errno) }
    let closing = descriptor
    descriptor = -1
    guard close(closing) == 0 else { throw Files.unwritable(path, errno) }
  }

  private func flush() throws(CheckpointError) {
    guard !gathered.isEmpty else { return }
    let pending = gathered
    gathered.removeAll(keepingCapacity: false)
    var failure: CheckpointError?
    pending.withUnsafeBytes { bytes in
      do throws(CheckpointError) { try put(bytes, at: gatheredStart) } catch { failure = error }
    }
    if let failure { throw failure }
    gatheredStart += pending.count
  }

  private func put(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(CheckpointError) {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      let wrote = pwrite(descriptor, base + done, bytes.count - done, off_t(offset + done))
      if wrote < 0 {
        if errno == EINTR { continue }
        throw Files.unwritable(path, errno)
      }
      // Nothing may be written only when nothing was asked for; a device that does it is full.
      guard wrote > 0 else { throw .diskFull(file: path) }
      done += wrote
    }
    letGo(offset..<(offset + bytes.count))
  }

  /// Starts writing a range out, and forgets the pages of one that was started a while ago. Only
  /// advice: errors, if they matter, come back from `fsync`.
  private func letGo(_ range: Range<Int>) {
    pare_start_writing_out(descriptor, Int64(range.lowerBound), Int64(range.count))
    underWay.append(range)
    guard underWay.count > Self.piecesUnderWay else { return }
    let oldest = underWay.removeFirst()
    pare_forget_written(descriptor, Int64(oldest.lowerBound), Int64(oldest.count))
  }

  deinit { if descriptor >= 0 { close(descriptor) } }
}
