/// Which group each column belongs to, where neighbours do not share one: GPTQ's order of activation
/// with groups formed along it (`g_idx`).
package struct ColumnGroups: Sendable, Hashable {
  /// The group of each column.
  package let index: [Int32]
  /// Columns sorted by group; the order in which codes are kept, so that a group is a run of them.
  package let order: [Int]

  /// - Returns: nil where groups are neighbours, `column / groupSize`.
  /// - Throws: `CodecError.wrongValue` where a group has another number of columns than the rest.
  package init?(index: [Int32], groupSize: Int, component: String) throws(CodecError) {
    let inputs = index.count
    // Some writers fill the tensor with -1 where it means nothing.
    if index.allSatisfy({ $0 == -1 }) { return nil }
    if index.indices.allSatisfy({ Int(index[$0]) == $0 / groupSize }) { return nil }
    let groups = max(1, (inputs + groupSize - 1) / groupSize)
    var counts = [Int](repeating: 0, count: groups)
    for group in index {
      guard group >= 0, group < groups else {
        throw .wrongValue(
          component: component, reason: "it names group \(group) where there are \(groups)")
      }
      counts[Int(group)] += 1
    }
    for (group, count) in counts.enumerated() {
      let expected = min(groupSize, inputs - group * groupSize)
      guard count == expected else {
        throw .wrongValue(
          component: component, reason: "group \(group) has \(count) columns, not \(expected)")
      }
    }
    self.index = index
    var next = counts.indices.map { $0 * groupSize }
    var order = [Int](repeating: 0, count: inputs)
    for (column, group) in index.enumerated() {
      order[next[Int(group)]] = column
      next[Int(group)] += 1
    }
    self.order = order
  }
}
