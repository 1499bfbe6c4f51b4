import ArgumentParser
import Recipes

/// On what activations are measured.
struct CalibrationOptions: ParsableArguments {
  @Option(
    help: "Text, JSONL or token ids to measure activations on. Default: the model writes its own.",
    completion: .file())
  var calibration: String?

  @Option(help: "Field of JSONL records that holds the text or the messages.")
  var calibrationField: String?

  @Flag(help: "The calibration file holds token ids, a JSON array a line.")
  var calibrationTokenIds = false

  @Option(help: "Template for conversations: a file, chatml or plain.")
  var chatTemplate: String?

  @Option(help: "Calibration rows. Default: 128; 32 of text that the model writes.")
  var samples: Int?

  @Option(
    help: "Tokens of a row. Default: 2048, or the context; 512 of text that the model writes.")
  var length: Int?

  var isUsed: Bool { calibration != nil || samples != nil || length != nil }

  var request: CalibrationRequest {
    var request = CalibrationRequest(data: calibration)
    request.field = calibrationField
    request.areTokens = calibrationTokenIds
    request.chatTemplate = chatTemplate
    request.samples = samples
    request.length = length
    return request
  }
}
