#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A file mapped read-only. Pages arrive when touched and can be given back.
///
/// `@unchecked Sendable`: the mapping never moves and its bytes are never written by us.
public final class MappedFile: @unchecked Sendable {
  public let path: String
  public let byteCount: Int
  package let base: UnsafeRawPointer

  /// - Throws: `MappingError` if the file cannot be opened or mapped.
  public init(path: String) throws(MappingError) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw MappingError(path: path, code: errno) }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw MappingError(path: path, code: errno) }
    let byteCount = Int(status.st_size)
    self.path = path
    self.byteCount = byteCount
    if byteCount == 0 {
      base = UnsafeRawPointer(UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1))
      return
    }
    guard let mapped = mmap(nil, byteCount, PROT_READ, MAP_PRIVATE, descriptor, 0),
      mapped != MAP_FAILED
    else { throw MappingError(path: path, code: errno) }
    base = UnsafeRawPointer(mapped)
  }

  public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: byteCount) }

  /// Tells the kernel that the pages wholly inside a range are no longer needed, so that a pass
  /// over a large file keeps only what it is working on resident.
  public func giveBack(_ range: Range<Int>) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let start = (range.lowerBound + page - 1) / page * page
    let end = min(range.upperBound, byteCount) / page * page
    guard end > start else { return }
    madvise(UnsafeMutableRawPointer(mutating: base + start), end - start, MADV_DONTNEED)
  }

  deinit {
    if byteCount == 0 {
      UnsafeMutableRawPointer(mutating: base).deallocate()
    } else {
      munmap(UnsafeMutableRawPointer(mutating: base), byteCount)
    }
  }
}

public struct MappingError: Error, CustomStringConvertible {
  public let path: String
  public let code: Int32
  public var description: String {
    "\(path) cannot be read: \(String(cString: strerror(code))). Check the path and its permissions."
  }
}
