#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A run of bytes that tensors share: allocated by us, or a file mapped into memory.
///
/// `@unchecked Sendable`: the bytes are written only while their creator holds the one reference
/// (`Tensor.init(shape:initializing:)`); afterwards every reader sees constant memory.
public final class Storage: @unchecked Sendable {
  package let base: UnsafeMutableRawPointer
  public let byteCount: Int
  /// What keeps the bytes alive when they are not ours: a `MappedFile`.
  package let owner: MappedFile?

  /// Uninitialized bytes, aligned for the widest vector loads.
  package init(byteCount: Int) {
    var pointer: UnsafeMutableRawPointer?
    let status = posix_memalign(&pointer, 64, max(byteCount, 64))
    guard status == 0, let pointer else {
      preconditionFailure("out of memory allocating \(byteCount) bytes")
    }
    base = pointer
    self.byteCount = byteCount
    owner = nil
  }

  /// Uninitialized bytes for a matrix that is read again and again: on pages of 2 MB where the system
  /// has them (a sixth more bandwidth for one thread), never more memory than asked for.
  package init(matrixByteCount byteCount: Int) {
    let huge = 2 << 20
    var pointer: UnsafeMutableRawPointer?
    let status = posix_memalign(&pointer, byteCount < huge ? 64 : huge, max(byteCount, 64))
    guard status == 0, let pointer else {
      preconditionFailure("out of memory allocating \(byteCount) bytes")
    }
    #if canImport(Glibc)
      if byteCount >= huge { madvise(pointer, byteCount / huge * huge, MADV_HUGEPAGE) }
    #endif
    base = pointer
    self.byteCount = byteCount
    owner = nil
  }

  /// A window of a mapped file; nothing is copied.
  package init(file: MappedFile, offset: Int, byteCount: Int) {
    precondition(offset >= 0 && byteCount >= 0 && offset <= file.byteCount - byteCount)
    base = UnsafeMutableRawPointer(mutating: file.base + offset)
    self.byteCount = byteCount
    owner = file
  }

  deinit { if owner == nil { free(base) } }
}
