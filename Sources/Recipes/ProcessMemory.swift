import Foundation

/// What this process has used of the machine's memory.
public enum ProcessMemory {
  /// Most bytes ever resident at once, mapped file pages included; nil where the system does not
  /// tell.
  public static var peakResidentBytes: Int? {
    #if os(Linux)
      // `ru_maxrss` would include what the parent held before it started this program.
      guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8) else {
        return nil
      }
      for line in status.split(separator: "\n") where line.hasPrefix("VmHWM:") {
        return line.split(whereSeparator: \.isWhitespace).dropFirst().first
          .flatMap { Int($0) }.map { $0 << 10 }
      }
      return nil
    #else
      var usage = rusage()
      return getrusage(RUSAGE_SELF, &usage) == 0 ? Int(usage.ru_maxrss) : nil
    #endif
  }
}
