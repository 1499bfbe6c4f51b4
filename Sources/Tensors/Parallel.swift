import CKernels

/// Work shared among threads by the claim pool. Results never depend on how many there are: callers
/// cut work into pieces by its size alone, and a piece writes only what is its own.
public enum Parallel {
  /// Threads that work together, at least one.
  public static var threads: Int {
    get { Int(pare_threads()) }
    set { pare_set_threads(Int32(clamping: newValue)) }
  }

  /// Runs `body(i)` for each i below `count`, in any order, and waits for all.
  package static func forEach(_ count: Int, _ body: @Sendable (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
      withUnsafePointer(to: body) { pointer in
        pare_parallel(
          max(count, 0),
          { context, index in
            guard let context else { return }
            context.assumingMemoryBound(to: (@Sendable (Int) -> Void).self).pointee(index)
          }, UnsafeMutableRawPointer(mutating: pointer))
      }
    }
  }

  /// The results of `body(i)` in order.
  package static func map<R: Sendable>(_ count: Int, _ body: @Sendable (Int) -> R) -> [R] {
    [R](unsafeUninitializedCapacity: max(count, 0)) { buffer, initialized in
      let target = Unshared(buffer)
      forEach(count) { target.value.initializeElement(at: $0, to: body($0)) }
      initialized = max(count, 0)
    }
  }

  /// Runs `body` on ranges that cover `0..<count`, each at most `size` long.
  package static func ranges(_ count: Int, of size: Int, _ body: @Sendable (Range<Int>) -> Void) {
    forEach((count + size - 1) / size) { index in
      body((index * size)..<min((index + 1) * size, count))
    }
  }
}

/// A pointer handed to pieces of parallel work.
///
/// `@unchecked Sendable`: each piece touches only its own part of the memory, and `Parallel` waits
/// for all before the memory's owner goes on.
package struct Unshared<Value>: @unchecked Sendable {
  package let value: Value
  package init(_ value: Value) { self.value = value }
}

extension UnsafeMutableBufferPointer {
  fileprivate func initializeElement(at index: Int, to value: Element) {
    baseAddress?.advanced(by: index).initialize(to: value)
  }
}
