package import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The activations of all batches between two stages: in memory up to a budget, in files past it.
/// What comes back is what went in, bit for bit, so the budget changes no result.
package final class ActivationStore {
  private enum Slot {
    case memory([Tensor?])
    /// Shapes of what lies in the batch's file, one after another.
    case file([[Int]?])
  }

  private let folder: String
  private let name: String
  private let budget: Int
  private var slots: [Slot]
  private var residentBytes = 0
  /// Most bytes that were spilled at once.
  package private(set) var spilledBytes = 0

  /// - Parameters:
  ///   - name: of the files, unique in the folder.
  ///   - budget: bytes that may stay in memory.
  package init(batches: Int, folder: String, name: String, budget: Int) {
    self.folder = folder
    self.name = name
    self.budget = budget
    slots = [Slot](repeating: .memory([]), count: batches)
  }

  private func path(_ batch: Int) -> String { "\(folder)/\(name)-\(batch).bin" }

  /// - Parameter tensors: float32; nil places stay nil.
  package func put(_ tensors: [Tensor?], at batch: Int) throws(CalibrationError) {
    release(batch)
    let bytes = tensors.reduce(0) { $0 + ($1?.byteCount ?? 0) }
    if residentBytes + bytes <= budget {
      slots[batch] = .memory(tensors)
      residentBytes += bytes
      return
    }
    try write(tensors, to: path(batch))
    spilledBytes = max(spilledBytes, bytes)
    slots[batch] = .file(tensors.map { $0?.shape })
  }

  package func get(_ batch: Int) throws(CalibrationError) -> [Tensor?] {
    switch slots[batch] {
    case .memory(let tensors): return tensors
    case .file(let shapes): return try read(shapes, from: path(batch))
    }
  }

  private func release(_ batch: Int) {
    if case .memory(let tensors) = slots[batch] {
      residentBytes -= tensors.reduce(0) { $0 + ($1?.byteCount ?? 0) }
    }
    slots[batch] = .memory([])
  }

  private func write(_ tensors: [Tensor?], to path: String) throws(CalibrationError) {
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw failure(path) }
    defer { close(file) }
    for tensor in tensors.compactMap({ $0 }) {
      let base = tensor.rawPointer
      var done = 0
      while done < tensor.byteCount {
        let wrote = Self.write(file, base + done, tensor.byteCount - done)
        if wrote < 0, errno == EINTR { continue }
        guard wrote > 0 else { throw failure(path) }
        done += wrote
      }
    }
  }

  private func read(_ shapes: [[Int]?], from path: String) throws(CalibrationError) -> [Tensor?] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { throw failure(path) }
    defer { close(file) }
    var tensors: [Tensor?] = []
    for shape in shapes {
      guard let shape else {
        tensors.append(nil)
        continue
      }
      let storage = Storage(byteCount: shape.reduce(4, *))
      var done = 0
      while done < storage.byteCount {
        let count = Self.read(file, storage.base + done, storage.byteCount - done)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { throw failure(path) }
        done += count
      }
      tensors.append(Tensor(dtype: .float32, shape: shape, storage: storage))
    }
    return tensors
  }

  private func failure(_ path: String) -> CalibrationError {
    .spillFailed(path: path, reason: String(cString: strerror(errno)))
  }

  private static func write(_ file: Int32, _ base: UnsafeRawPointer, _ count: Int) -> Int {
    #if canImport(Glibc)
      Glibc.write(file, base, count)
    #else
      Darwin.write(file, base, count)
    #endif
  }

  private static func read(_ file: Int32, _ base: UnsafeMutableRawPointer, _ count: Int) -> Int {
    #if canImport(Glibc)
      Glibc.read(file, base, count)
    #else
      Darwin.read(file, base, count)
    #endif
  }

  deinit {
    for (batch, slot) in slots.enumerated() {
      if case .file = slot { unlink(path(batch)) }
    }
  }
}
