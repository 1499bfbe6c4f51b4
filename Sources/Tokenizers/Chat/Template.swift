public import Text

/// A template in the part of Jinja that chat templates use, as transformers renders it: jinja2's
/// sandbox with `trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}` as a mere group,
/// and `tojson` that writes plain JSON. Undefined values print nothing and fail when used.
///
/// Differences, all refusals: no inheritance, imports or recursive loops; `escape` and `safe` give plain
/// text, which is not escaped when joined to other text; filters that yield iterators yield lists; whole numbers are of 64 bits; work, depth and memory
/// are bounded.
public struct Template: Sendable {
  private let statements: [TemplateStatement]

  /// - Parameter source: UTF-8.
  /// - Throws: what is malformed or not supported, with its line.
  public init(_ source: [UInt8]) throws(TemplateError) {
    statements = try TemplateParser.statements(of: UTF8Sequence.repaired(source))
  }

  /// - Parameters:
  ///   - variables: what the template may read.
  ///   - time: seconds since 1970 that `strftime_now` shows, in local time; the present when nil.
  ///   - workLimit: steps it may take; the default is far more than a million tokens of chat need,
  ///     and bounds the memory to some hundred megabytes.
  /// - Returns: the rendered UTF-8.
  public func render(
    _ variables: JSONObject, time: Int? = nil, workLimit: Int = 20_000_000
  ) throws(TemplateError) -> [UInt8] {
    let renderer = TemplateRenderer(time: time, workLimit: workLimit)
    let values = zip(variables.keyStrings, variables.values).map { ($0, TemplateValue($1)) }
    return try renderer.render(statements, values)
  }
}
