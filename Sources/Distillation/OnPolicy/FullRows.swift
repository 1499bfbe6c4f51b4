package import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension TeacherRows {
  /// The whole distribution of each row as logits `[rows, vocabulary]`. A list of the most probable
  /// tokens is one if it names every token.
  ///
  /// - Parameter use: what needs all of it, for the message.
  /// - Throws: `partialTeacher`, `vocabulariesDiffer`.
  package func full(vocabulary: Int, _ use: String) throws(DistillationError) -> Tensor {
    switch self {
    case .logits(let logits):
      guard logits.columns == vocabulary else {
        throw .cannotCombine(vocabulary, logits.columns, use: use)
      }
      return logits
    case .top(let top):
      guard top.k == vocabulary else {
        throw .partialTeacher(kept: top.k, vocabulary: vocabulary, use: use)
      }
      return Tensor(shape: [top.rows, vocabulary]) { target in
        target.initialize(repeating: -.infinity)
        for row in 0..<top.rows {
          for entry in row * vocabulary..<(row + 1) * vocabulary {
            target[row * vocabulary + Int(top.ids[entry])] = top.logProbabilities[entry]
          }
        }
      }
    }
  }
}

extension Tensor {
  /// log softmax of one entry of each row.
  func logProbabilities(of ids: [Int]) -> [Double] {
    precondition(ids.count == rows)
    return zip(logSumExpRows(), ids.indices).map { sum, row in
      Double(floats[row * columns + ids[row]]) - sum
    }
  }
}
