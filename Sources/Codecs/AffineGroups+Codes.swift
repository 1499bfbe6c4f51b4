import CKernels
package import Tensors

extension AffineGroups {
  /// The weight whose codes and grids a method has chosen itself.
  ///
  /// - Parameters:
  ///   - codes: int8 `[outputs, inputs]`, each from `lowestCode` to `highestCode`.
  ///   - grids: scales that the stored type holds exactly.
  package func weight(codes: Tensor, grids: AffineGrids) -> GroupQuantizedWeight {
    let (outputs, inputs) = (codes.shape[0], codes.shape[1])
    precondition(codes.dtype == .int8 && codes.shape.count == 2)
    let expected = granularity == .tensor ? 1 : outputs * groupCount(inputs: inputs)
    precondition(grids.scales.count == expected && grids.zeros.count == expected)
    let pass = EncodingPass(codec: self, source: codes)
    return GroupQuantizedWeight(
      codec: self, outputs: outputs, inputs: inputs,
      codes: layout == .packed ? packed(codes) : codes, scales: pass.storedScales(grids),
      zeroPoints: pass.storedZeros(grids))
  }

  private func packed(_ codes: Tensor) -> Tensor {
    let (outputs, inputs) = (codes.shape[0], codes.shape[1])
    let words = (inputs * bits + 31) / 32
    return Tensor(dtype: .int32, shape: [outputs, words]) { target in
      guard let base = target.bindMemory(to: UInt32.self).baseAddress else { return }
      let target = Unshared(base)
      let source = Unshared(codes.rawPointer.assumingMemoryBound(to: Int8.self))
      Parallel.ranges(outputs, of: max(1, 262_144 / max(inputs, 1))) { rows in
        pare_affine_pack_codes(
          source.value + rows.lowerBound * inputs, rows.count, inputs, Int32(bits),
          target.value + rows.lowerBound * words)
      }
    }
  }
}
