import Checkpoints
import Models
import Training

/// Born-again networks (Furlanello et al. 2018, arXiv:1805.04770): a student of its teacher's
/// shape, started anew, becomes the teacher of the next, and all of them together may predict
/// better than the last.
package struct BornAgain: Sendable, Equatable {
  /// Students after the first teacher.
  package var generations: Int
  /// Each generation starts from numbers of its own.
  package var seed: UInt64

  /// - Throws: `badSetting`.
  package init(generations: Int, seed: UInt64 = 0) throws(DistillationError) {
    guard generations >= 1 else {
      throw .badSetting(
        "the number of generations", value: "\(generations)", expected: "at least 1")
    }
    self.generations = generations
    self.seed = seed
  }

  /// One training of the chain.
  package struct Generation: Sendable, Equatable {
    /// From 1.
    package var number: Int
    /// Of the student's first numbers and of its training.
    package var seed: UInt64
    /// The model folder that it learns from.
    package var teacher: String
    /// The model folder that it becomes.
    package var output: String
  }

  /// - Parameters:
  ///   - teacher: a model folder, generation 0.
  ///   - folder: gets `generation-1`, `generation-2`, …
  package func plan(teacher: String, in folder: String) -> [Generation] {
    (1...generations).map { number in
      Generation(
        number: number, seed: Mixer.mixed(seed, number),
        teacher: number == 1 ? teacher : Self.path(number - 1, folder),
        output: Self.path(number, folder))
    }
  }

  private static func path(_ number: Int, _ folder: String) -> String {
    "\(folder)/generation-\(number)"
  }

  /// Trains the generations that are not there yet, one after the other. Outputs appear when whole,
  /// so a chain that was stopped goes on with the generation it was stopped in.
  ///
  /// - Parameter train: writes the student's model folder to `output`.
  /// - Returns: the last generation.
  /// - Throws: what `train` throws.
  @discardableResult
  package func run(
    teacher: String, in folder: String, train: (Generation) throws -> Void
  ) throws -> Generation {
    let plan = plan(teacher: teacher, in: folder)
    for generation in plan where !FileProbe.exists(generation.output) { try train(generation) }
    return plan[plan.count - 1]
  }

  /// All generations as one teacher or predictor: the paper's ensemble.
  package func ensemble(in folder: String) throws -> TeacherEnsemble {
    try TeacherEnsemble(
      (1...generations).map { ModelTeacher(try LanguageModel.load(Self.path($0, folder))) })
  }
}
