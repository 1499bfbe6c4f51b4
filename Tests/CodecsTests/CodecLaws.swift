import Codecs
import Tensors
import Testing

/// The laws in `Codec`'s documentation, for any codec and any matrix.
func checkLaws<C: Codec>(
  of codec: C, on weight: Tensor, sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let encoded = try codec.encode(weight)
  let values = weight.dtype == .float32 ? weight : weight.widened()
  let decoded = encoded.dequantized()
  #expect(decoded.shape == weight.shape, sourceLocation: sourceLocation)

  var worst = 0.0
  for row in 0..<weight.rows {
    for column in 0..<weight.columns {
      let value = values.floats[row * weight.columns + column]
      guard let halfStep = codec.halfStep(at: value, row: row, column: column, in: encoded) else {
        continue
      }
      let error = abs(decoded.floats[row * weight.columns + column] - value)
      worst = max(worst, Double(error) - Double(halfStep) - Double(abs(value)) * 0x1p-21)
    }
  }
  #expect(
    worst <= 0, "inside the grid the error is at most half a step", sourceLocation: sourceLocation)

  let again = try codec.encode(decoded, onGridOf: encoded)
  #expect(
    again.isIdentical(to: encoded), "decoded values are on the grid", sourceLocation: sourceLocation
  )

  try checkStorageLaws(of: encoded, decoded: decoded, sourceLocation: sourceLocation) {
    components throws(CodecError) in try codec.decode(components)
  }
}

/// The laws of any stored weight: its components say it all, its bytes are counted, its rows are
/// those of the whole.
func checkStorageLaws<W: StoredWeight>(
  of encoded: W, decoded: Tensor, sourceLocation: SourceLocation = #_sourceLocation,
  reading read: ([String: Tensor]) throws(CodecError) -> W
) throws {
  var components: [String: Tensor] = [:]
  for (suffix, tensor) in encoded.encoded() { components[suffix] = tensor }
  let reloaded = try read(components)
  #expect(
    reloaded.isIdentical(to: encoded), "components say it all", sourceLocation: sourceLocation)
  #expect(reloaded.dequantized().isIdentical(to: decoded), sourceLocation: sourceLocation)
  #expect(
    encoded.storedBytes == encoded.encoded().reduce(0) { $0 + $1.tensor.byteCount },
    sourceLocation: sourceLocation)

  guard encoded.outputs > 0 else { return }
  let ids = [encoded.outputs - 1, 0, encoded.outputs / 2]
  let looked = encoded.rows(at: ids)
  for (position, id) in ids.enumerated() {
    #expect(
      looked.rows(position..<position + 1).isIdentical(to: decoded.rows(id..<id + 1)),
      sourceLocation: sourceLocation)
  }
}

/// Deterministic numbers for tests: a 64-bit multiplicative generator.
struct TestRandom {
  var state: UInt64
  init(seed: UInt64) { state = seed &* 2 &+ 1 }

  mutating func unit() -> Double {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Double(state >> 11) * 0x1p-53
  }

  /// About normal, with an outlier now and then.
  mutating func matrix(_ rows: Int, _ columns: Int, scale: Double = 1) -> Tensor {
    Tensor(
      (0..<rows * columns).map { _ in
        let normal = (0..<6).reduce(0.0) { sum, _ in sum + unit() } - 3
        return Float(normal * scale * (unit() < 0.02 ? 5 : 1))
      }, shape: [rows, columns])
  }
}

extension Tensor {
  /// The upper halves of float32 values.
  func truncatedToBFloat16() -> Tensor {
    Tensor(dtype: .bfloat16, shape: shape) { bytes in
      for index in 0..<count {
        bytes.storeBytes(
          of: UInt16(floats[index].bitPattern >> 16), toByteOffset: index * 2, as: UInt16.self)
      }
    }
  }
}
