import ArgumentParser
import Checkpoints
import Foundation
import Recipes
import Synchronization

@main
struct Pare: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pare",
    abstract: "Makes a language model fit the device it must run on, and proves what that cost.",
    discussion: """
      Start here:

        pare demo
        pare inspect MODEL
        pare quantize MODEL -o smaller --bits 4
        pare eval divergence smaller --baseline MODEL --file text.txt
        pare run smaller --prompt "Once upon a time"
        pare chat smaller
        pare distill --teacher MODEL --student-shape layers=4 --data text.txt --steps 1000 -o student

      MODEL is the folder of a Hugging Face checkpoint or a GGUF file. Results go to stdout, progress to stderr.
      Exit codes: 0 done, 1 failed, 3 a --require gate failed, 64 wrong usage, 130 interrupted.
      """,
    version: PareVersion.current,
    subcommands: [
      Inspect.self, Tokenize.self, Logits.self, Quantize.self, Compress.self, Convert.self,
      Imatrix.self,
      Train.self, Finetune.self, Distill.self,
      Eval.self, Run.self, Chat.self, Bench.self, Demo.self,
    ])

  static func main() {
    Interruption.install()
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      // What fails because an interruption took its output away is no error of its own.
      Interruption.waitIfEnding()
      exit(withError: error)
    }
  }
}

/// Ctrl-C and a polite kill leave nothing half-written: unfinished outputs are removed, then the
/// process ends with the customary code.
enum Interruption {
  static func install() {
    for (number, code) in [(SIGINT, Int32(130)), (SIGTERM, Int32(143))] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(
        signal: number, queue: .global(qos: .userInitiated))
      source.setEventHandler {
        if number == SIGINT,
          state.compareExchange(
            expected: State.captured, desired: State.requested, ordering: .relaxed
          ).exchanged
        {
          return
        }
        isEnding.store(true, ordering: .sequentiallyConsistent)
        OutputDirectory.discardAllActive()
        exit(code)
      }
      source.activate()
      sources.append(source)
    }
    // A reader that closes the pipe, as `head` does, ends the program quietly.
    signal(SIGPIPE, SIG_DFL)
    // A file-size limit is an error of the write, like a full disk, not a reason to die.
    signal(SIGXFSZ, SIG_IGN)
  }

  private static let isEnding = Atomic<Bool>(false)

  /// Never returns once an interruption has begun to end the program.
  static func waitIfEnding() {
    while isEnding.load(ordering: .sequentiallyConsistent) { pause() }
  }

  // MARK: Stopping an answer

  private enum State {
    static let ends = 0
    static let captured = 1
    static let requested = 2
  }

  private static let state = Atomic<Int>(State.ends)

  /// Runs `body`, during which the first Ctrl-C asks it to stop instead of ending the program.
  static func capturing<R>(_ body: () throws -> R) rethrows -> R {
    state.store(State.captured, ordering: .relaxed)
    defer { state.store(State.ends, ordering: .relaxed) }
    return try body()
  }

  /// Whether Ctrl-C has asked the body of `capturing` to stop.
  static var isRequested: Bool { state.load(ordering: .relaxed) == State.requested }

  /// Kept alive for the whole run; written once, before any other thread exists.
  nonisolated(unsafe) private static var sources: [any DispatchSourceSignal] = []
}
