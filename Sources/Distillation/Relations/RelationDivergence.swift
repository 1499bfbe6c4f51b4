import Tensors

/// How alike two models relate the tokens of a text: for some channels of each, the divergence
/// between the softmaxes over `x · xᵀ / √channels`, row by row, KL(teacher ‖ student).
///
/// Matrices `[tokens, tokens]` exist for one head of one text at a time.
struct RelationDivergence {
  /// Channels that are compared, and the part in the sum over heads that they stand for.
  struct Head {
    var student: Range<Int>
    var teacher: Range<Int>
    var share: Double
  }

  var heads: [Head]
  /// Those that count.
  var segments: [Range<Int>]
  var rows: RowShares
  var span: RowSpan

  /// - Parameters:
  ///   - student: `[tokens, channels]`, recorded.
  ///   - teacher: `[tokens, channels]`
  func value(_ student: Tensor, _ teacher: Tensor) -> Tensor {
    let teacher = teacher.detached
    return Tape.sum([student], over: segments.count * heads.count) {
      (piece: Int, leaves: [Tensor]) in
      let (segment, head) = (segments[piece / heads.count], heads[piece % heads.count])
      return Self.relation(leaves[0], segment, head.student).softmaxDivergence(
        from: Self.relation(teacher, segment, head.teacher),
        weights: rows.of(segment, times: head.share), seeing: span)
    }
  }

  private static func relation(_ x: Tensor, _ segment: Range<Int>, _ channels: Range<Int>)
    -> Tensor
  {
    let x = x.rows(segment).columns(channels)
    return Tensor.matmul(x, transposing: x).scaled(by: 1 / Float(channels.count).squareRoot())
  }
}
