public import Text

/// Where in its data a training stands; a stream restored to it goes on with the very next batch.
public struct DataPosition: Sendable, Equatable {
  /// Passes over the data that are done.
  public var epoch: Int
  /// Documents of the epoch's order that are done.
  public var document: Int
  /// Predictions of the next document that are done.
  public var token: Int
  /// Batches made.
  public var batch: Int

  public static let start = DataPosition(epoch: 0, document: 0, token: 0, batch: 0)

  public init(epoch: Int, document: Int, token: Int, batch: Int) {
    self.epoch = epoch
    self.document = document
    self.token = token
    self.batch = batch
  }

  public var json: JSON {
    [
      "epoch": JSON(epoch), "document": JSON(document), "token": JSON(token),
      "batch": JSON(batch),
    ]
  }

  /// - Throws: `badPosition` when a count is missing or negative.
  public init(json: JSON) throws(TrainingError) {
    func count(_ key: String) throws(TrainingError) -> Int {
      guard let value = json[key]?.int, value >= 0 else {
        throw .badPosition(problem: "\"\(key)\" is not a count")
      }
      return value
    }
    epoch = try count("epoch")
    document = try count("document")
    token = try count("token")
    batch = try count("batch")
  }
}
