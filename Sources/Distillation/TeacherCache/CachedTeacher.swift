import Tensors
package import Training

/// A teacher whose predictions were computed before: it says the most probable tokens only, and has
/// no states.
package final class CachedTeacher: Teacher {
  package let file: CacheFile
  /// For each place of the batch its text's record and its row there.
  private var places: [(record: Int, row: Int)?] = []
  private var records: [CacheRecord] = []

  /// - Parameters:
  ///   - file: of a cache.
  ///   - expected: what it must be made of.
  /// - Throws: `foreignCache` when it was made of something else.
  package init(_ file: CacheFile, expected: CacheIdentity) throws(DistillationError) {
    try file.identity.check(expected: expected, path: file.path)
    self.file = file
  }

  package var vocabularySize: Int { file.code.vocabularySize }

  /// - Throws: `notInCache` for a batch with a text that the teacher has not seen; `badSetting` when
  ///   states are wanted, which no cache keeps.
  package func begin(_ batch: TrainingBatch, wanting wish: StateWish) throws -> PassStates? {
    guard wish == .none else {
      throw DistillationError.badSetting(
        "the teacher of a loss on states", value: "a cache of predictions", expected: "a model")
    }
    places = [(record: Int, row: Int)?](repeating: nil, count: batch.inputs.count)
    records = []
    for segment in batch.segments {
      let wanted = segment.filter { batch.weights[$0] != 0 }
      guard !wanted.isEmpty else { continue }
      guard let record = try file.record(TextDigest(batch, segment)), record.rows == wanted.count
      else { throw DistillationError.notInCache(path: file.path) }
      for (row, place) in wanted.enumerated() { places[place] = (records.count, row) }
      records.append(record)
    }
    return nil
  }

  package func rows(_ wanted: [Int]) throws -> TeacherRows {
    let k = file.code.k
    let (found, records) = (wanted.map { places[$0] }, records)
    var ids = [Int32](repeating: 0, count: wanted.count * k)
    var logProbabilities = [Float](repeating: 0, count: wanted.count * k)
    let isWhole = ids.withUnsafeMutableBufferPointer { ids in
      logProbabilities.withUnsafeMutableBufferPointer { logProbabilities in
        guard let ids = ids.baseAddress, let logProbabilities = logProbabilities.baseAddress
        else { return true }
        let (idTarget, target) = (Unshared(ids), Unshared(logProbabilities))
        return Parallel.map(found.count) { index in
          guard let (record, row) = found[index] else { return false }
          return records[record].read(
            row, ids: idTarget.value + index * k, logProbabilities: target.value + index * k)
        }.allSatisfy { $0 }
      }
    }
    guard isWhole else {
      throw DistillationError.unreadableCache(path: file.path, problem: "a record is damaged")
    }
    return .top(TopProbabilities(k: k, ids: ids, logProbabilities: logProbabilities))
  }
}
