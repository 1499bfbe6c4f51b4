import Foundation
import Tensors
import TestSupport
import Training

/// Reproducible numbers and parameters for the tests of optimizers.
struct OptimizerNumbers {
  private var random: Xoshiro256

  init(_ seed: UInt64) { random = Xoshiro256(seed: seed) }

  /// Normal, over about three decades.
  mutating func floats(_ count: Int, scale: Double = 1) -> [Float] {
    (0..<count).map { _ in
      Float(random.normal() * exp(-7 * random.uniform()) * scale)
    }
  }

  mutating func tensor(_ shape: [Int], scale: Double = 1) -> Tensor {
    Tensor(floats(shape.reduce(1, *), scale: scale), shape: shape)
  }

  /// A matrix, a tall one, a bias, an embedding: odd sizes, one beyond a piece of parallel work.
  mutating func parameters(dtype: DType = .float32) -> [Parameter] {
    [
      Parameter(
        name: "layers.0.up", initial: tensor([37, 53]), dtype: dtype, decays: true,
        isBlockMatrix: true),
      Parameter(
        name: "layers.0.down", initial: tensor([211, 29]), dtype: dtype, decays: true,
        isBlockMatrix: true),
      Parameter(
        name: "layers.0.bias", initial: tensor([53]), dtype: dtype, decays: false,
        isBlockMatrix: false),
      Parameter(
        name: "embeddings", initial: tensor([331, 101]), dtype: dtype, decays: false,
        isBlockMatrix: false),
    ]
  }

  mutating func giveGradients(_ parameters: [Parameter]) {
    for parameter in parameters {
      parameter.replaceGradient(by: tensor(parameter.shape))
    }
  }
}

/// Every optimizer, with settings that are not the defaults.
let optimizerChoices: [OptimizerChoice] = [
  .adamW(AdamW(learningRate: 0.02, beta1: 0.8, beta2: 0.97, weightDecay: 0.2)),
  .sgd(SGD(learningRate: 0.05, momentum: 0.9, isNesterov: true, weightDecay: 0.1)),
  .sgd(SGD(learningRate: 0.05, momentum: 0.7, dampening: 0.4)),
  .sgd(SGD(learningRate: 0.05, momentum: 0, weightDecay: 0.1)),
  .lion(Lion(learningRate: 0.01, beta1: 0.85, beta2: 0.95, weightDecay: 0.3)),
  .muon(Muon(learningRate: 0.02, rest: AdamW(learningRate: 0.01))),
  .muon(Muon(learningRate: 0.01, isNesterov: false, scale: .matchAdamW)),
]

extension Parameter {
  /// Its numbers as float32.
  var floats: [Float] { tensor.detached.widened().array }
  var bytes: [UInt8] { tensor.byteArray }
}

extension Tensor {
  var byteArray: [UInt8] { withExtendedLifetime(self) { Array(bytes) } }
}

extension Array where Element == (name: String, tensor: Tensor) {
  /// Copies, as reading a checkpoint gives.
  var copied: [String: Tensor] {
    Dictionary(
      uniqueKeysWithValues: map { name, tensor in
        let bytes = tensor.bytes
        return (
          name, Tensor(dtype: tensor.dtype, shape: tensor.shape) { $0.copyMemory(from: bytes) }
        )
      })
  }
}

/// Tests/Golden/training/optimizers.safetensors: what torch.optim made.
func optimizerGolden() throws -> [String: Tensor] {
  let path = SharedFiles.packageRoot.appending(path: "Tests/Golden/training")
  let data = try Data(contentsOf: path.appending(path: "optimizers.safetensors"))
  let headerSize = data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
  let header = try JSONSerialization.jsonObject(with: data.dropFirst(8).prefix(headerSize))
  let body = Data(data.dropFirst(8 + headerSize))
  var tensors: [String: Tensor] = [:]
  for (name, entry) in header as? [String: [String: Any]] ?? [:] {
    guard let shape = entry["shape"] as? [Int], let range = entry["data_offsets"] as? [Int] else {
      continue
    }
    tensors[name] = Tensor(dtype: .float32, shape: shape) {
      _ = body[range[0]..<range[1]].copyBytes(to: $0)
    }
  }
  return tensors
}
