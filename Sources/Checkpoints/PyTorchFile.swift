import Tensors

/// `pytorch_model.bin`: a zip archive as `torch.save` writes it since PyTorch 1.6. `data.pkl`
/// describes the tensors, `data/KEY` are their storages, `byteorder` says how they are stored.
enum PyTorchFile {
  /// The pickled number by which files of the former format begin, `0x1950a86a20f9469cfc6c`.
  private static let legacyStart: [UInt8] = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9]

  /// Whether a file looks like the work of `torch.save`, old or new.
  static func isRecognised(_ file: MappedFile) -> Bool {
    ZipArchive.isZip(file) || file.bytes.starts(with: legacyStart)
  }

  static func read(_ file: MappedFile) throws(CheckpointError) -> WeightFile {
    guard !file.bytes.starts(with: legacyStart) else { throw .legacyPyTorch(file: file.path) }
    guard file.byteCount > 0 else { throw .truncated(file: file.path, expected: 22, actual: 0) }
    guard ZipArchive.isZip(file) else {
      throw .wrongArchive(file: file.path, problem: "it is not a zip archive")
    }
    let archive = try ZipArchive(file)
    let suffix = "/data.pkl"
    let candidates = archive.entries.keys.filter { $0.hasSuffix(suffix) }
    guard let pickleName = candidates.first, candidates.count == 1,
      let pickle = archive.entries[pickleName]
    else { throw .wrongArchive(file: file.path, problem: "it has no data.pkl, or several") }
    let root = String(pickleName.dropLast(suffix.count))

    if let order = archive.entries["\(root)/byteorder"], order.range.count <= 16,
      !archive.bytes(order).elementsEqual("little".utf8)
    {
      throw .wrongArchive(file: file.path, problem: "its numbers are big-endian")
    }
    guard archive.isIntact(pickle) else {
      throw .wrongArchive(file: file.path, problem: "the checksum of data.pkl is wrong")
    }

    var unpickler = Unpickler(archive.bytes(pickle), file: file.path)
    let saved = try unpickler.run()
    let pairs = try unpickler.tensorTable(from: saved)
    var names: Set<String> = []
    var tensors: [StoredTensor] = []
    for (name, pickled) in pairs {
      guard names.insert(name).inserted else {
        throw .duplicateTensor(name: name, files: [file.path])
      }
      tensors.append(try place(name, pickled, in: archive, root: root))
    }
    return WeightFile(file: file, tensors: tensors, metadata: [:])
  }

  /// Finds a view's bytes in the file and checks that all of them lie in its storage.
  private static func place(
    _ name: String, _ tensor: PickledTensor, in archive: ZipArchive, root: String
  ) throws(CheckpointError) -> StoredTensor {
    let path = archive.file.path
    func wrong(_ problem: String) -> CheckpointError {
      .wrongTensor(file: path, tensor: name, problem: problem)
    }
    let storage = tensor.storage
    guard let entry = archive.entries["\(root)/data/\(storage.key)"] else {
      throw wrong("its storage data/\(storage.key) is missing")
    }
    let (stated, overflow) = storage.count.multipliedReportingOverflow(by: storage.dtype.byteCount)
    guard !overflow && stated == entry.range.count else {
      throw wrong("its storage has \(entry.range.count) bytes, not the stated \(stated)")
    }
    guard let byteCount = Shape.byteCount(tensor.shape, tensor.dtype) else {
      throw wrong("its shape \(tensor.shape) is not possible")
    }
    let width = tensor.dtype.byteCount
    let available = entry.range.count / width
    let info = TensorInfo(
      name: name, dtype: tensor.dtype, shape: tensor.shape, file: path)
    if byteCount == 0 {
      return StoredTensor(info: info, offset: entry.range.lowerBound, strides: nil)
    }
    // The last element's index bounds all others, as strides are not negative.
    guard tensor.offset >= 0 else { throw wrong("its offset is negative") }
    var last = tensor.offset
    for (size, stride) in zip(tensor.shape, tensor.strides) {
      guard stride >= 0 else { throw wrong("a stride is negative") }
      let (span, tooFar) = (size - 1).multipliedReportingOverflow(by: stride)
      let (next, farther) = last.addingReportingOverflow(span)
      guard !tooFar && !farther else { throw wrong("it reaches beyond its storage") }
      last = next
    }
    guard last < available else { throw wrong("it reaches beyond its storage") }
    // A view that repeats elements (stride 0) could describe terabytes in a few bytes.
    guard byteCount / width <= available else {
      throw wrong("it repeats the elements of its storage; save it with .contiguous()")
    }
    let isContiguous = zip(
      tensor.shape, zip(tensor.strides, Shape.rowMajorStrides(tensor.shape))
    ).allSatisfy { size, strides in size == 1 || strides.0 == strides.1 }
    return StoredTensor(
      info: info, offset: entry.range.lowerBound + tensor.offset * width,
      strides: isContiguous ? nil : tensor.strides)
  }
}

extension Unpickler {
  /// The named tensors of a saved table: its own, or those of the table under "state_dict" or
  /// "model" that training scripts wrap around it. Other values (a step number) are left out.
  func tensorTable(from value: Value) throws(CheckpointError) -> [(String, PickledTensor)] {
    guard case .node(let index) = value, case .table(let pairs) = nodes[index] else {
      throw wrong("it holds something else")
    }
    if let own = tensors(in: pairs) { return own }
    for case (key: .string(let key), value: .node(let index)) in pairs
    where key == "state_dict" || key == "model" {
      if case .table(let inner) = nodes[index], let found = tensors(in: inner) { return found }
    }
    throw wrong("it holds no tensors")
  }

  private func tensors(
    in pairs: [(key: Value, value: Value)]
  ) -> [(String, PickledTensor)]? {
    var found: [(String, PickledTensor)] = []
    for case (key: .string(let key), value: .node(let index)) in pairs {
      if case .tensor(let tensor) = nodes[index] { found.append((key, tensor)) }
    }
    return found.isEmpty ? nil : found
  }
}
