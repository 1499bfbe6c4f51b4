package import Models

/// What losses on inner states need to know of a model before anything runs.
package struct StateShape: Sendable, Equatable {
  package var layers: Int
  /// Of hidden states.
  package var width: Int

  package init(layers: Int, width: Int) {
    self.layers = layers
    self.width = width
  }

  package init(_ configuration: ModelConfiguration) {
    self.init(layers: configuration.blocks.count, width: configuration.hiddenSize)
  }
}

/// A layer of the student and the teacher's layer that it learns from, both from 0.
package struct LayerPair: Sendable, Hashable {
  package var student: Int
  package var teacher: Int

  package init(student: Int, teacher: Int) {
    self.student = student
    self.teacher = teacher
  }
}

/// Which layers of a student learn from which of a teacher.
package enum LayerMap: Sendable, Equatable {
  /// Student layer i learns from teacher layer i · Lₜ / Lₛ, both counted from 1, rounded down
  /// (TinyBERT's uniform strategy, Jiao et al. 2020).
  case uniform
  /// The last layers only.
  case last
  /// One layer in the middle of each, as hint and guided layer (FitNets, Romero et al. 2015).
  case middle
  case list([LayerPair])

  /// The pairs between models of given depths, in the order of the student's layers.
  ///
  /// - Throws: `layerOutOfRange` for a listed layer that a model does not have, `noLayers` where
  ///   there is nothing to pair: an empty list, or a student deeper than its teacher under
  ///   `uniform`.
  package func pairs(student: Int, teacher: Int) throws(DistillationError) -> [LayerPair] {
    guard student > 0, teacher > 0 else {
      throw .noLayers(map: name, student: student, teacher: teacher)
    }
    switch self {
    case .uniform:
      guard student <= teacher else {
        throw .noLayers(map: name, student: student, teacher: teacher)
      }
      return (0..<student).map {
        LayerPair(student: $0, teacher: ($0 + 1) * teacher / student - 1)
      }
    case .last: return [LayerPair(student: student - 1, teacher: teacher - 1)]
    case .middle:
      return [LayerPair(student: (student - 1) / 2, teacher: (teacher - 1) / 2)]
    case .list(let pairs):
      guard !pairs.isEmpty else {
        throw .noLayers(map: name, student: student, teacher: teacher)
      }
      for pair in pairs {
        guard (0..<student).contains(pair.student) else {
          throw .layerOutOfRange(pair.student, of: student, model: "student")
        }
        guard (0..<teacher).contains(pair.teacher) else {
          throw .layerOutOfRange(pair.teacher, of: teacher, model: "teacher")
        }
      }
      return pairs.sorted { ($0.student, $0.teacher) < ($1.student, $1.teacher) }
    }
  }

  private var name: String {
    switch self {
    case .uniform: "uniform"
    case .last: "last"
    case .middle: "middle"
    case .list(let pairs):
      "[" + pairs.map { "\($0.student): \($0.teacher)" }.joined(separator: ", ") + "]"
    }
  }
}
