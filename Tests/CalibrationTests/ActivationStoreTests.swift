import Calibration
import Tensors
import TestSupport
import Testing

@Test(arguments: [0, 100, 1 << 20]) func whatIsStoredComesBackWhateverTheBudget(budget: Int) throws
{
  try withTemporaryDirectory { folder in
    var random = Xoshiro256(seed: 1)
    func tensor(_ rows: Int, _ columns: Int) -> Tensor {
      Tensor((0..<rows * columns).map { _ in Float(random.uniform()) }, shape: [rows, columns])
    }
    let store = ActivationStore(batches: 3, folder: folder, name: "test", budget: budget)
    var expected = (0..<3).map { _ in [tensor(3, 5), nil, tensor(1, 7)] as [Tensor?] }
    for (batch, tensors) in expected.enumerated() { try store.put(tensors, at: batch) }
    // Replaced by something of another size.
    expected[1] = [tensor(9, 2)]
    try store.put(expected[1], at: 1)
    for (batch, tensors) in expected.enumerated() {
      let found = try store.get(batch)
      #expect(found.count == tensors.count)
      for (a, b) in zip(found, tensors) {
        #expect((a == nil) == (b == nil))
        if let a, let b { #expect(a.isIdentical(to: b)) }
      }
    }
    #expect((store.spilledBytes > 0) == (budget < 200))
  }
}
