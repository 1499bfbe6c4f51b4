import Codecs
import Tensors
import TestSupport
import Testing

@Test(arguments: AffineGroups.supportedBits)
func chosenCodesAreStoredAsTheEncoderStoresItsOwn(bits: Int) throws {
  var random = Xoshiro256(seed: UInt64(bits))
  for inputs in [16, 33, 63, 64, 65, 200, 1023, 1024, 1100, 2100] {
    let weight = Tensor(
      (0..<5 * inputs).map { _ in Float(random.uniform()) - 0.4 }, shape: [5, inputs])
    for layout in [AffineGroups.Layout.packed, .int8] {
      for granularity in [AffineGroups.Granularity.group(32), .channel, .tensor] {
        for isSymmetric in [true, false] {
          let codec = try AffineGroups(
            bits: bits, granularity: granularity, isSymmetric: isSymmetric, layout: layout,
            allowsShortLastGroup: true)
          let encoded = try codec.encode(weight)
          let codes = encoded.integerCodes
          let bytes = Tensor(dtype: .int8, shape: [5, inputs]) { target in
            codes.withUnsafeBytes { target.copyMemory(from: $0) }
          }
          let rebuilt = codec.weight(codes: bytes, grids: encoded.grids)
          #expect(rebuilt.isIdentical(to: encoded), "\(inputs) \(layout) \(granularity)")
        }
      }
    }
  }
}
