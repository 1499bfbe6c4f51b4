import Tensors
import Text

/// Where a path's weights are: the files to map, in order, and the index that names them.
struct Layout {
  let folder: String
  let format: Checkpoint.Format
  let files: [String]
  let index: ShardIndex?

  /// The file names that hold a model's weights, in the order in which they are looked for.
  private static let candidates: [(name: String, format: Checkpoint.Format, isIndex: Bool)] = [
    ("model.safetensors", .safetensors, false),
    ("model.safetensors.index.json", .safetensors, true),
    ("pytorch_model.bin", .pytorch, false),
    ("pytorch_model.bin.index.json", .pytorch, true),
  ]

  static func locate(_ path: String) throws(CheckpointError) -> Layout {
    switch Files.kind(path) {
    case .absent:
      throw .unreadable(
        file: path, reason: Files.isTaken(path) ? "the link leads nowhere" : "it does not exist")
    case .other: throw .unknownFormat(file: path, reason: "it is neither a file nor a folder")
    case .file: return try file(path)
    case .folder: return try folder(snapshot(of: path))
    }
  }

  // MARK: Folders

  private static func folder(_ path: String) throws(CheckpointError) -> Layout {
    for candidate in candidates {
      let file = Files.join(path, candidate.name)
      switch Files.kind(file) {
      case .file:
        return candidate.isIndex
          ? try indexed(file, format: candidate.format)
          : Layout(folder: path, format: candidate.format, files: [file], index: nil)
      case .absent:
        // A link without its target: the cache lost the file, or is still fetching it.
        guard !Files.isTaken(file) else {
          throw .unreadable(file: file, reason: "the link leads nowhere")
        }
      case .folder, .other: break
      }
    }
    let found = try Files.list(path).filter {
      $0.hasSuffix(".safetensors") || $0.hasSuffix(".bin") || $0.hasSuffix(".gguf")
    }
    throw .noWeights(folder: path, lookedFor: candidates.map(\.name), found: found)
  }

  /// The Hub's cache keeps `models--ORG--NAME/{blobs,refs,snapshots/COMMIT}`. Given that folder,
  /// the snapshot that `refs/main` names is meant, or the only one.
  private static func snapshot(of path: String) throws(CheckpointError) -> String {
    let snapshots = Files.join(path, "snapshots")
    guard Files.kind(snapshots) == .folder, Files.kind(Files.join(path, "config.json")) == .absent
    else { return path }
    let reference = Files.join(path, "refs/main")
    if Files.kind(reference) == .file {
      let bytes = try Files.read(reference, limit: 4096)
      let isName = { (byte: UInt8) in byte > 32 && byte != UInt8(ascii: "/") }
      let commit = String(decoding: bytes.prefix(while: isName), as: UTF8.self)
      let snapshot = Files.join(snapshots, commit)
      guard !commit.isEmpty, commit != "..", Files.kind(snapshot) == .folder else {
        throw .unreadable(file: reference, reason: "it names a snapshot that is not there")
      }
      return snapshot
    }
    let all = try Files.list(snapshots)
    guard let only = all.first, all.count == 1 else {
      throw .noWeights(
        folder: path, lookedFor: ["refs/main"], found: all.map { "snapshots/\($0)" })
    }
    return Files.join(snapshots, only)
  }

  private static func indexed(
    _ path: String, format: Checkpoint.Format
  ) throws(CheckpointError) -> Layout {
    let index = try ShardIndex(path)
    return Layout(folder: index.folder, format: format, files: index.shards, index: index)
  }

  // MARK: Files

  private static func file(_ path: String) throws(CheckpointError) -> Layout {
    if path.hasSuffix(".safetensors.index.json") { return try indexed(path, format: .safetensors) }
    if path.hasSuffix(".bin.index.json") { return try indexed(path, format: .pytorch) }
    let (folder, name) = Files.split(path)
    let format: Checkpoint.Format
    let file = try MappedFile.open(path)
    if path.hasSuffix(".safetensors") {
      format = .safetensors
    } else if path.hasSuffix(".gguf") || GGUFFile.isRecognised(file) {
      format = .gguf
    } else if PyTorchFile.isRecognised(file) {
      format = .pytorch
    } else if name.hasSuffix(".bin") || name.hasSuffix(".pt") || name.hasSuffix(".pth") {
      throw .wrongArchive(file: path, problem: "it is not a zip archive")
    } else {
      throw .unknownFormat(
        file: path, reason: "it is neither a .safetensors, a .bin nor a .gguf file")
    }
    return Layout(folder: folder, format: format, files: [path], index: nil)
  }
}

/// `model.safetensors.index.json`: which shard holds which tensor.
struct ShardIndex {
  let path: String
  let folder: String
  /// Paths of the shards, in byte order of their names.
  let shards: [String]
  /// Name and shard path of every tensor, in the index's order.
  let tensors: [(name: String, shard: String)]

  init(_ path: String) throws(CheckpointError) {
    self.path = path
    folder = Files.split(path).folder
    let json: JSON
    let bytes = try Files.read(path)
    do throws(JSONError) {
      json = try JSON.parse(bytes, name: path)
    } catch {
      throw .wrongIndex(index: path, problem: "\(error)")
    }
    guard let map = json["weight_map"]?.object, !map.isEmpty else {
      throw .wrongIndex(index: path, problem: "it has no weight_map")
    }
    var tensors: [(name: String, shard: String)] = []
    var shards: Set<String> = []
    for (key, value) in map {
      let tensor = String(decoding: key, as: UTF8.self)
      guard let shard = value.string, !shard.isEmpty, !shard.contains("/"), !shard.contains("\0")
      else { throw .wrongIndex(index: path, problem: "\(tensor) has no shard in this folder") }
      tensors.append((tensor, Files.join(folder, shard)))
      shards.insert(shard)
    }
    let ordered = shards.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    for shard in ordered where Files.kind(Files.join(folder, shard)) != .file {
      throw .missingShard(index: path, shard: shard)
    }
    let folder = folder
    self.shards = ordered.map { Files.join(folder, $0) }
    self.tensors = tensors
  }
}
