import CKernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A file mapped read-only. Pages arrive when touched and can be given back.
///
/// A file that shrinks, or a disk that fails, while it is mapped would end the process with SIGBUS.
/// Here the missing pages become zeros and `isDamaged` becomes true; whoever reads asks for it
/// before trusting a result.
///
/// `@unchecked Sendable`: the mapping never moves and its bytes are never written by us.
public final class MappedFile: @unchecked Sendable {
  public let path: String
  public let byteCount: Int
  package let base: UnsafeRawPointer
  /// Our own open file, so that a look at its size is not fooled by a new file of the same name.
  private let descriptor: Int32
  private let guarded: OpaquePointer?
  private let modified: timespec

  /// - Throws: `MappingError` if the path is not a regular file, or cannot be opened or mapped.
  public init(path: String) throws(MappingError) {
    // O_NONBLOCK: opening a pipe that nobody writes to would otherwise wait for ever.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw MappingError(path: path, code: errno) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let code = errno
      close(descriptor)
      throw MappingError(path: path, code: code)
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      throw MappingError(path: path, code: status.st_mode & S_IFMT == S_IFDIR ? EISDIR : ENODEV)
    }
    let byteCount = Int(status.st_size)
    if byteCount == 0 {
      base = UnsafeRawPointer(UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1))
      guarded = nil
    } else {
      guard let mapped = mmap(nil, byteCount, PROT_READ, MAP_PRIVATE, descriptor, 0),
        mapped != MAP_FAILED
      else {
        let code = errno
        close(descriptor)
        throw MappingError(path: path, code: code)
      }
      base = UnsafeRawPointer(mapped)
      guard let slot = pare_mapping_register(mapped, byteCount) else {
        munmap(mapped, byteCount)
        close(descriptor)
        throw MappingError(path: path, code: ENOMEM)
      }
      guarded = slot
    }
    self.path = path
    self.byteCount = byteCount
    self.descriptor = descriptor
    modified = Self.modificationTime(status)
  }

  public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: byteCount) }

  /// Whether bytes read so far may be wrong: a page could not be read, or the file has been cut,
  /// grown or written since it was mapped. (A file *replaced* by another of its name is not damaged:
  /// the mapping keeps the old one.)
  public var isDamaged: Bool {
    if let guarded, pare_mapping_is_damaged(guarded) != 0 { return true }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { return true }
    let now = Self.modificationTime(status)
    return Int(status.st_size) != byteCount || now.tv_sec != modified.tv_sec
      || now.tv_nsec != modified.tv_nsec
  }

  /// Tells this file from another of its name and from itself after a change: size and time of
  /// modification.
  public var stamp: String { "\(byteCount) \(modified.tv_sec).\(modified.tv_nsec)" }

  /// Tells the kernel that the pages wholly inside a range are no longer needed, so that a pass
  /// over a large file keeps only what it is working on resident.
  public func giveBack(_ range: Range<Int>) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let start = (range.lowerBound + page - 1) / page * page
    let end = min(range.upperBound, byteCount) / page * page
    guard end > start else { return }
    madvise(UnsafeMutableRawPointer(mutating: base + start), end - start, MADV_DONTNEED)
  }

  private static func modificationTime(_ status: stat) -> timespec {
    #if canImport(Darwin)
      status.st_mtimespec
    #else
      status.st_mtim
    #endif
  }

  deinit {
    if byteCount == 0 {
      UnsafeMutableRawPointer(mutating: base).deallocate()
    } else {
      if let guarded { pare_mapping_release(guarded) }
      munmap(UnsafeMutableRawPointer(mutating: base), byteCount)
    }
    close(descriptor)
  }
}

public struct MappingError: Error, CustomStringConvertible {
  public let path: String
  public let code: Int32
  /// The operating system's words for `code`.
  public var reason: String { String(cString: strerror(code)) }
  public var description: String {
    "\(path) cannot be read: \(reason). Check the path and its permissions."
  }
}
