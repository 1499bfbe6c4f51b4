import CKernels

/// SHA-256 of a stream of bytes, as `sha256sum` prints it.
public struct SHA256: Sendable {
  private var state = pare_sha256()

  public init() { pare_sha256_start(&state) }

  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    pare_sha256_update(&state, bytes.baseAddress, bytes.count)
  }

  /// 64 hexadecimal digits.
  public consuming func finish() -> String {
    var digest = [UInt8](repeating: 0, count: 32)
    pare_sha256_finish(&state, &digest)
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for byte in digest {
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
  }

  public static func digest(_ bytes: UnsafeRawBufferPointer) -> String {
    var hash = SHA256()
    hash.update(bytes)
    return hash.finish()
  }
}
