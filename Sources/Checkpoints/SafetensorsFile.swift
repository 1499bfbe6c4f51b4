import Tensors
import Text

/// Reads the header of a safetensors file: eight bytes with the header's length, a JSON object that
/// names tensors, then their numbers without gaps. Nothing of the file but the header is touched.
/// Format: huggingface/safetensors, README.
enum SafetensorsFile {
  /// The reference implementation's limit; a header is about a hundred bytes per tensor.
  static let longestHeader = 100_000_000

  static func read(_ file: MappedFile) throws(CheckpointError) -> WeightFile {
    let path = file.path
    guard file.byteCount >= 8 else {
      throw .truncated(file: path, expected: 8, actual: file.byteCount)
    }
    let stated = UInt64(littleEndian: file.bytes.loadUnaligned(as: UInt64.self))
    guard let length = Int(exactly: stated), length <= longestHeader,
      length <= file.byteCount - 8
    else { throw .headerTooLong(file: path, length: stated, fileSize: file.byteCount) }
    let header = UnsafeRawBufferPointer(rebasing: file.bytes[8..<(8 + length)])
    guard header.first == UInt8(ascii: "{") else {
      throw .wrongHeader(file: path, problem: "its header is not a JSON object")
    }
    let object: JSON
    do throws(JSONError) {
      object = try JSON.parse(header, name: path)
    } catch {
      if case .duplicateKey(_, _, _, let key) = error {
        throw .duplicateTensor(name: key, files: [path])
      }
      throw .wrongHeader(file: path, problem: "its header is not JSON (\(error))")
    }
    return try read(file, header: object.object ?? JSONObject(), dataStart: 8 + length)
  }

  private static func read(
    _ file: MappedFile, header: JSONObject, dataStart: Int
  ) throws(CheckpointError) -> WeightFile {
    var metadata: [String: String] = [:]
    var names: Set<String> = []
    var entries: [(info: TensorInfo, range: Range<Int>)] = []
    for (key, value) in header {
      let name = String(decoding: key, as: UTF8.self)
      if name == "__metadata__" {
        metadata = try readMetadata(value, file: file.path)
        continue
      }
      // Two names may differ in bytes and still be equal as Swift compares text.
      guard names.insert(name).inserted else {
        throw .duplicateTensor(name: name, files: [file.path])
      }
      entries.append(try readEntry(name, value, file: file.path))
    }
    entries.sort {
      ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
    }
    let dataCount = file.byteCount - dataStart
    var end = 0
    var previous = ""
    for (info, range) in entries {
      if range.lowerBound < end {
        throw .overlap(file: file.path, first: previous, second: info.name)
      }
      guard range.lowerBound == end else {
        throw .wrongTensor(
          file: file.path, tensor: info.name,
          problem: "\(range.lowerBound - end) bytes before it belong to no tensor")
      }
      end = range.upperBound
      previous = info.name
    }
    guard end <= dataCount else {
      throw .truncated(file: file.path, expected: dataStart + end, actual: file.byteCount)
    }
    guard end == dataCount else {
      throw .wrongHeader(
        file: file.path, problem: "its last \(dataCount - end) bytes belong to no tensor")
    }
    let tensors = entries.map {
      StoredTensor(info: $0.info, offset: dataStart + $0.range.lowerBound, strides: nil)
    }
    return WeightFile(file: file, tensors: tensors, metadata: metadata)
  }

  private static func readMetadata(
    _ value: JSON, file: String
  ) throws(CheckpointError) -> [String: String] {
    guard let object = value.object else {
      throw .wrongHeader(file: file, problem: "its __metadata__ is not an object")
    }
    var metadata: [String: String] = [:]
    for (key, value) in object {
      guard let text = value.string else {
        throw .wrongHeader(file: file, problem: "its __metadata__ holds \(value.kind)")
      }
      metadata[String(decoding: key, as: UTF8.self)] = text
    }
    return metadata
  }

  private static func readEntry(
    _ name: String, _ value: JSON, file: String
  ) throws(CheckpointError) -> (info: TensorInfo, range: Range<Int>) {
    func wrong(_ problem: String) -> CheckpointError {
      .wrongTensor(file: file, tensor: name, problem: problem)
    }
    guard let entry = value.object, let dtypeName = entry["dtype"]?.string else {
      throw wrong("it has no element type")
    }
    guard let dtype = DType(rawValue: dtypeName) else {
      throw .unknownDType(file: file, tensor: name, dtype: dtypeName)
    }
    guard let shape = integers(entry["shape"]) else {
      throw wrong("its shape is not a list of sizes")
    }
    guard let offsets = integers(entry["data_offsets"]), offsets.count == 2,
      0 <= offsets[0], offsets[0] <= offsets[1]
    else { throw wrong("its data_offsets are not a range of bytes") }
    guard let byteCount = Shape.byteCount(shape, dtype) else {
      throw wrong("its shape \(shape) is not possible")
    }
    guard byteCount == offsets[1] - offsets[0] else {
      throw wrong(
        "\(shape) elements of type \(dtypeName) take \(byteCount) bytes, "
          + "but it has \(offsets[1] - offsets[0])")
    }
    let info = TensorInfo(name: name, dtype: dtype, shape: shape, file: file)
    return (info, offsets[0]..<offsets[1])
  }

  private static func integers(_ value: JSON?) -> [Int]? {
    guard let array = value?.array else { return nil }
    let numbers = array.compactMap(\.int)
    return numbers.count == array.count ? numbers : nil
  }
}
