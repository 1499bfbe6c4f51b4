package import Tensors

/// A tensor shown under another name, maybe with its rows in another order.
package struct TensorView: Sendable {
  /// What readers are told. Its bytes per row are those of the source.
  package var info: TensorInfo
  /// Name in the checkpoint that is shown.
  package var source: String
  /// Makes the shown tensor of the stored one; nil where both are the same.
  package var read: (@Sendable (Tensor) -> Tensor)?

  package init(
    info: TensorInfo, source: String, read: (@Sendable (Tensor) -> Tensor)? = nil
  ) {
    self.info = info
    self.source = source
    self.read = read
  }
}

/// A side file that is not on the disk but made when it is read.
package struct MadeFile: Sendable {
  package var name: String
  package var read: @Sendable () throws(CheckpointError) -> [UInt8]

  package init(
    name: String, read: @escaping @Sendable () throws(CheckpointError) -> [UInt8]
  ) {
    self.name = name
    self.read = read
  }
}
