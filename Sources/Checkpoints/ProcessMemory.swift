#if canImport(Darwin)
  import Darwin
#endif

/// What this process uses of the machine's memory.
public enum ProcessMemory {
  /// Most bytes ever resident at once, mapped file pages included; nil where the system does not
  /// tell.
  public static var peakResidentBytes: Int? {
    #if os(Linux)
      // `ru_maxrss` would include what the parent held before it started this program.
      return status("VmHWM:")
    #else
      var usage = rusage()
      return getrusage(RUSAGE_SELF, &usage) == 0 ? Int(usage.ru_maxrss) : nil
    #endif
  }

  /// Bytes resident now, mapped file pages included; nil where the system does not tell.
  public static var residentBytes: Int? {
    #if os(Linux)
      return status("VmRSS:")
    #else
      return nil
    #endif
  }

  #if os(Linux)
    private static func status(_ field: String) -> Int? {
      // The file has no size, so that a read by size would find nothing.
      guard let bytes = try? Files.readStream("/proc/self/status") else { return nil }
      for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n")
      where line.hasPrefix(field) {
        return line.split { $0 == " " || $0 == "\t" }.dropFirst().first
          .flatMap { Int($0) }.map { $0 << 10 }
      }
      return nil
    }
  #endif
}
