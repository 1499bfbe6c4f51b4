public import Tensors
import Text

/// A tensor that is going to be written: all that the header must know before the numbers exist.
public struct TensorDeclaration: Sendable, Hashable {
  public var name: String
  public var dtype: DType
  public var shape: [Int]

  public init(name: String, dtype: DType, shape: [Int]) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
  }
}

/// Where each declared tensor will lie: in which file, and where in it.
struct SafetensorsLayout {
  struct File {
    let name: String
    let header: [UInt8]
    let dataByteCount: Int
  }
  struct Place {
    let file: Int
    /// Offset in the file, header included.
    let offset: Int
    let byteCount: Int
  }

  let files: [File]
  /// In declared order.
  let places: [Place]
  /// Sum over all tensors.
  let dataByteCount: Int

  /// Tensors fill a shard in declared order until the next would pass the limit; one that is larger
  /// than the limit has a shard of its own.
  ///
  /// Within a file, tensors with wider elements come first, and otherwise in declared order. Widths
  /// are powers of two, so each tensor then starts at a multiple of its width: PyTorch cannot view
  /// bytes as wider elements elsewhere, and the format has no room for padding.
  init(
    _ tensors: [TensorDeclaration], metadata: [(String, String)], stem: String, shardByteLimit: Int
  ) throws(CheckpointError) {
    var names: Set<String> = ["__metadata__"]
    var byteCounts: [Int] = []
    var shards: [[Int]] = []
    var filled = 0
    var total = 0
    for (number, tensor) in tensors.enumerated() {
      guard names.insert(tensor.name).inserted else {
        throw .wrongDeclaration("\(tensor.name) is declared twice, or is a reserved name")
      }
      guard let byteCount = Shape.byteCount(tensor.shape, tensor.dtype),
        byteCount <= Int.max / 2 - total
      else { throw .wrongDeclaration("\(tensor.name) has an impossible shape \(tensor.shape)") }
      if shards.isEmpty || filled > 0 && byteCount > shardByteLimit - filled {
        shards.append([])
        filled = 0
      }
      shards[shards.count - 1].append(number)
      byteCounts.append(byteCount)
      filled += byteCount
      total += byteCount
    }
    if shards.isEmpty { shards = [[]] }

    var files: [File] = []
    var places = byteCounts.map { Place(file: 0, offset: 0, byteCount: $0) }
    for (file, members) in shards.enumerated() {
      // Stable: Swift's sort promises it only in practice, so the index breaks ties.
      let order = members.sorted {
        (-tensors[$0].dtype.byteCount, $0) < (-tensors[$1].dtype.byteCount, $1)
      }
      var starts: [Int] = []
      var end = 0
      for number in order {
        starts.append(end)
        end += byteCounts[number]
      }
      let ranges = zip(order, starts).map { ($0, $1..<($1 + byteCounts[$0])) }
      let header = Self.header(tensors, ranges, metadata)
      for (number, range) in ranges {
        places[number] = Place(
          file: file, offset: header.count + range.lowerBound, byteCount: range.count)
      }
      files.append(
        File(
          name: Self.fileName(stem, file, of: shards.count), header: header, dataByteCount: end))
    }
    self.files = files
    self.places = places
    dataByteCount = total
  }

  static func fileName(_ stem: String, _ index: Int, of count: Int) -> String {
    func padded(_ number: Int) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }
    return count == 1
      ? "\(stem).safetensors"
      : "\(stem)-\(padded(index + 1))-of-\(padded(count)).safetensors"
  }

  /// The length, then the JSON, padded with spaces so that the numbers start on a cache line when the
  /// file is mapped (the format asks for a multiple of 8).
  private static func header(
    _ tensors: [TensorDeclaration], _ ranges: [(Int, Range<Int>)], _ metadata: [(String, String)]
  ) -> [UInt8] {
    var members: [(String, JSON)] = []
    if !metadata.isEmpty {
      let remarks = metadata.map { ($0, JSON($1)) }
      members.append(("__metadata__", .object(JSONObject(remarks))))
    }
    for (number, range) in ranges {
      let tensor = tensors[number]
      let entry: JSON = [
        "dtype": JSON(tensor.dtype.rawValue),
        "shape": .array(tensor.shape.map { JSON($0) }),
        "data_offsets": [JSON(range.lowerBound), JSON(range.upperBound)],
      ]
      members.append((tensor.name, entry))
    }
    var text = JSON.object(JSONObject(members)).serialized(pretty: false)
    while (text.count + 8) % 64 != 0 { text.append(UInt8(ascii: " ")) }
    return withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) } + text
  }

  /// `model.safetensors.index.json`, its tensors in byte order of their names.
  func index(_ tensors: [TensorDeclaration]) -> [UInt8] {
    let entries = zip(tensors, places).map { ($0.name, JSON(files[$1.file].name)) }
    let sorted = entries.sorted { $0.0.utf8.lexicographicallyPrecedes($1.0.utf8) }
    let parameters = tensors.reduce(0) { $0 + $1.shape.reduce(1, *) }
    let json: JSON = [
      "metadata": ["total_parameters": JSON(parameters), "total_size": JSON(dataByteCount)],
      "weight_map": .object(JSONObject(sorted)),
    ]
    return json.serialized(pretty: true) + [UInt8(ascii: "\n")]
  }
}
