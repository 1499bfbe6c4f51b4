import Foundation
import Tensors

/// A small safetensors file read whole: the golden files of these tests, independent of Checkpoints.
struct GoldenFile {
  let tensors: [String: Tensor]

  init(_ path: String) throws {
    let data = try Data(contentsOf: URL(filePath: path))
    let headerSize = data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let header = try JSONSerialization.jsonObject(with: data.dropFirst(8).prefix(headerSize))
    let body = Data(data.dropFirst(8 + headerSize))
    var tensors: [String: Tensor] = [:]
    for (name, entry) in header as? [String: [String: Any]] ?? [:] where name != "__metadata__" {
      guard let type = (entry["dtype"] as? String).flatMap(DType.init(rawValue:)),
        let shape = entry["shape"] as? [Int], let range = entry["data_offsets"] as? [Int]
      else { throw CocoaError(.fileReadCorruptFile) }
      tensors[name] = Tensor(dtype: type, shape: shape) { bytes in
        _ = body[range[0]..<range[1]].copyBytes(to: bytes)
      }
    }
    self.tensors = tensors
  }

  /// Tensors under `prefix/`, named by what follows.
  func group(_ prefix: String) -> [String: Tensor] {
    var group: [String: Tensor] = [:]
    for (name, tensor) in tensors where name.hasPrefix(prefix + "/") {
      group[String(name.dropFirst(prefix.count + 1))] = tensor
    }
    return group
  }
}
