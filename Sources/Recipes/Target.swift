package import Models
import Text

/// Names matrices of a model: a role (`attention.q`), a family of roles (`mlp.*`), `linear` for all
/// matrices inside blocks, or module paths by name, glob or `re:` pattern.
public struct Target: Sendable, Equatable {
  public let text: String
  /// Line of the recipe file, for errors.
  public let line: Int?

  public init(_ text: String, line: Int? = nil) {
    self.text = text
    self.line = line
  }

  public static func == (a: Target, b: Target) -> Bool { a.text == b.text }

  /// A test for tensors, compiled once.
  /// - Throws: `RecipeError.badPattern` for a `re:` that cannot be used.
  package func matcher() throws(RecipeError) -> Matcher {
    if text.hasPrefix("re:") {
      do {
        return Matcher(kind: .pattern(try Pattern(String(text.dropFirst(3)))))
      } catch {
        throw .badPattern(text, reason: "\(error)", line: line)
      }
    }
    return Matcher(kind: text == "linear" ? .blockLinears : .glob(Array(text.utf8)))
  }

  package struct Matcher: Sendable {
    fileprivate enum Kind: Sendable {
      case blockLinears
      case glob([UInt8])
      case pattern(Pattern)
    }
    fileprivate let kind: Kind

    package func matches(_ tensor: ModelTensor, module: String) -> Bool {
      switch kind {
      case .blockLinears: tensor.role.isBlockLinear
      case .glob(let glob):
        Self.matches(glob[...], Array(tensor.role.rawValue.utf8)[...])
          || Self.matches(glob[...], Array(module.utf8)[...])
      case .pattern(let pattern): pattern.matchesPrefix(of: Array(module.utf8))
      }
    }

    /// `*` stands for any run of bytes, `?` for one.
    private static func matches(_ glob: ArraySlice<UInt8>, _ text: ArraySlice<UInt8>) -> Bool {
      var glob = glob, text = text
      // Where to take up again when the last `*` has to swallow one byte more.
      var resume: (glob: ArraySlice<UInt8>, text: ArraySlice<UInt8>)?
      while !text.isEmpty {
        if glob.first == UInt8(ascii: "*") {
          glob = glob.dropFirst()
          resume = (glob, text)
        } else if let byte = glob.first, byte == UInt8(ascii: "?") || byte == text.first {
          glob = glob.dropFirst()
          text = text.dropFirst()
        } else if let last = resume {
          resume = (last.glob, last.text.dropFirst())
          glob = last.glob
          text = last.text.dropFirst()
        } else {
          return false
        }
      }
      return glob.allSatisfy { $0 == UInt8(ascii: "*") }
    }
  }
}
