/// What can be wrong with a checkpoint that is read, or with a place that is written to.
public enum CheckpointError: Error, Equatable, Sendable, CustomStringConvertible {
  // Finding the files
  case unreadable(file: String, reason: String)
  case noWeights(folder: String, lookedFor: [String], found: [String])
  case unknownFormat(file: String, reason: String)
  case missingShard(index: String, shard: String)
  case wrongIndex(index: String, problem: String)
  case indexedTensorAbsent(index: String, tensor: String, shard: String)
  case missingSideFile(folder: String, name: String)

  // Inside one file
  case truncated(file: String, expected: Int, actual: Int)
  case headerTooLong(file: String, length: UInt64, fileSize: Int)
  case wrongHeader(file: String, problem: String)
  case unknownDType(file: String, tensor: String, dtype: String)
  case wrongTensor(file: String, tensor: String, problem: String)
  case overlap(file: String, first: String, second: String)
  case duplicateTensor(name: String, files: [String])
  case legacyPyTorch(file: String)
  case refusedGlobal(file: String, name: String)
  case wrongArchive(file: String, problem: String)
  case wrongPickle(file: String, problem: String)
  case wrongGGUF(file: String, problem: String)
  case wrongMetadata(file: String, key: String, problem: String)
  case unsupportedMetadata(file: String, key: String, reason: String)
  case wrongImportance(file: String, problem: String)
  case damagedWhileReading(file: String)

  // A model's expectations against what is there
  case missingTensors([String], in: String)
  case unexpectedTensors([String], in: String)
  case wrongShape(name: String, expected: [Int], actual: [Int])

  // Writing
  case diskFull(file: String)
  case unwritable(file: String, reason: String)
  case outputExists(path: String)
  case outputNotReplaceable(path: String, reason: String)
  case outputTouchesInput(output: String, input: String)
  case outputBusy(path: String)
  case outputDiscarded(path: String)
  case wrongDeclaration(String)

  public var description: String {
    switch self {
    case .unreadable(let file, let reason):
      "\(file) cannot be read: \(reason). Check the path and its permissions."
    case .noWeights(let folder, let lookedFor, let found):
      "\(folder) holds no weights: none of \(Self.list(lookedFor)) is there"
        + (found.isEmpty ? "." : ", only \(Self.list(found)); to read one of these, give its path.")
    case .unknownFormat(let file, let reason):
      "\(file) is not a checkpoint that can be read: \(reason)."
    case .missingShard(let index, let shard):
      "\(index) names the shard \(shard), which is not beside it. Download the missing file."
    case .wrongIndex(let index, let problem):
      "\(index) is not a valid shard index: \(problem). Download it again."
    case .indexedTensorAbsent(let index, let tensor, let shard):
      "\(index) says that \(tensor) is in \(shard), which does not contain it. "
        + "Download both files again, from the same revision."
    case .missingSideFile(let folder, let name):
      "\(folder) has no \(name). Copy it there from the original model."

    case .truncated(let file, let expected, let actual):
      "\(file) is cut short: \(expected) bytes are described, \(actual) are there. "
        + "Download it again."
    case .headerTooLong(let file, let length, let fileSize):
      "\(file) is not a valid safetensors file: it states a header of \(length) bytes, "
        + "and is \(fileSize) bytes long. Download it again."
    case .wrongHeader(let file, let problem):
      "\(file) is not a valid safetensors file: \(problem). Download it again."
    case .unknownDType(let file, let tensor, let dtype):
      "\(tensor) in \(file) has the element type \(dtype), which is not supported."
    case .wrongTensor(let file, let tensor, let problem):
      "\(tensor) in \(file) is not valid: \(problem). Download the file again."
    case .overlap(let file, let first, let second):
      "\(first) and \(second) claim the same bytes of \(file). Download it again."
    case .duplicateTensor(let name, let files):
      "\(name) occurs twice, in \(Self.list(files)). Remove one of the two."
    case .legacyPyTorch(let file):
      "\(file) was saved in the format that PyTorch used before version 1.6. Load it in PyTorch "
        + "and save it again, best as safetensors."
    case .refusedGlobal(let file, let name):
      "\(file) asks to run \(name), which is not part of storing tensors; it was not run. "
        + "Do not open this file elsewhere unless you trust who made it."
    case .wrongArchive(let file, let problem):
      "\(file) is not a valid PyTorch archive: \(problem). Download it again."
    case .wrongPickle(let file, let problem):
      "\(file) does not hold a plain table of tensors: \(problem). "
        + "Save the model's state_dict() again, best as safetensors."
    case .wrongGGUF(let file, let problem):
      "\(file) is not a GGUF file that can be read: \(problem). Download it again, or make it anew."
    case .wrongMetadata(let file, let key, let problem):
      "\(file): the metadata key \(key) \(problem). Download the file again, or make it anew."
    case .unsupportedMetadata(let file, let key, let reason):
      "\(file) is not supported: its \(key) \(reason)."
    case .wrongImportance(let file, let problem):
      "\(file) is not an importance matrix that can be read: \(problem). "
        + "Make it anew with pare imatrix."
    case .damagedWhileReading(let file):
      "\(file) was changed or became unreadable while it was being read. "
        + "Make sure that nothing writes to it, and run again."

    case .missingTensors(let names, let place):
      "\(place) lacks \(Self.count(names)) that the model needs: \(Self.list(names))."
    case .unexpectedTensors(let names, let place):
      "\(place) holds \(Self.count(names)) that the model does not use: \(Self.list(names))."
    case .wrongShape(let name, let expected, let actual):
      "\(name) has the shape \(actual), but config.json asks for \(expected)."

    case .diskFull(let file):
      "\(file) cannot be written: the disk is full, or a limit on file sizes is reached. "
        + "Free space or choose another place."
    case .unwritable(let file, let reason):
      "\(file) cannot be written: \(reason). Choose another place or change its permissions."
    case .outputExists(let path):
      "\(path) exists already. Choose another name or pass --overwrite."
    case .outputNotReplaceable(let path, let reason):
      "\(path) is not overwritten: \(reason). Choose another name."
    case .outputTouchesInput(let output, let input):
      "\(output) is, or contains, the input \(input). Choose another name."
    case .outputBusy(let path):
      "\(path) is being written by another run. Wait for it to end or choose another name."
    case .outputDiscarded(let path):
      "\(path) was given up before it was whole."
    case .wrongDeclaration(let problem):
      "The tensors to be written do not fit their declaration: \(problem)."
    }
  }

  private static func count(_ names: [String]) -> String {
    names.count == 1 ? "a tensor" : "\(names.count) tensors"
  }

  /// The first few names, and how many more there are.
  private static func list(_ names: [String]) -> String {
    let shown = names.prefix(8).joined(separator: ", ")
    return names.count <= 8 ? shown : "\(shown) and \(names.count - 8) more"
  }
}
