/// Where a tensor stands in a recorded computation, so that gradients find their way back.
///
/// Nothing is global: a tensor carries its node, an operation on tensors that have one gives its
/// result one, and the graph lives as long as its last tensor. An operation on tensors without a node
/// records nothing and costs nothing.
///
/// `@unchecked Sendable`: a graph is built and walked by the one thread that trains; the threads of
/// the pool see pointers to numbers only.
public final class GradientNode: @unchecked Sendable {
  /// What has arrived so far, one float32 number for each element of the tensor.
  package private(set) var gradient: Tensor?
  /// Empty for a leaf, whose gradient stays until it is cleared.
  fileprivate var parents: [GradientNode]
  fileprivate var backward: ((Tensor) -> Void)?

  package init() { parents = [] }

  fileprivate init(parents: [GradientNode], backward: @escaping (Tensor) -> Void) {
    self.parents = parents
    self.backward = backward
  }

  /// A long computation is let go node by node, not by each node's release inside that of the next,
  /// which would take stack for every step.
  deinit {
    var released = parents
    (parents, backward) = ([], nil)
    while var node = released.popLast() {
      guard isKnownUniquelyReferenced(&node) else { continue }
      released += node.parents
      (node.parents, node.backward) = ([], nil)
    }
  }

  /// Adds in place only to memory that nobody else holds: what arrived may be another node's gradient
  /// too, and what was taken from here stays what it was.
  fileprivate func receive(_ arriving: Tensor) {
    if gradient?.isSoleHolder() ?? false {
      gradient?.add(arriving)
    } else if let gradient {
      self.gradient = gradient.plain + arriving.plain.reshaped(gradient.shape)
    } else {
      gradient = arriving
    }
  }

  fileprivate func accumulate(
    shape: [Int], _ add: (UnsafeMutablePointer<Float>, _ isFirst: Bool) -> Void
  ) {
    let isFirst = gradient == nil
    if !(gradient?.isSoleHolder() ?? false) {
      let old = gradient
      gradient = Tensor(shape: shape) { target in
        if let old, let base = target.baseAddress {
          base.update(from: old.floats, count: old.count)
        }
      }
    }
    guard let gradient else { return }
    add(UnsafeMutablePointer(mutating: gradient.floats), isFirst)
  }

  /// Forgets the gradient; its memory goes.
  package func clear() { gradient = nil }

  /// Multiplies what has arrived by a number: clipping, averaging.
  package func scale(by factor: Float) {
    gradient = gradient?.scaled(by: factor)
  }

  /// Puts a gradient in place of what has arrived.
  package func replace(by gradient: Tensor) { self.gradient = gradient.plain }
}

extension Tensor {
  /// The same numbers without a place in a computation.
  public var detached: Tensor { plain }

  var plain: Tensor {
    var copy = self
    copy.node = nil
    return copy
  }

  /// The same numbers as the start of a computation: a leaf that will hold a gradient.
  package var asLeaf: Tensor {
    var copy = self
    copy.node = GradientNode()
    return copy
  }

  /// What has arrived at a leaf, in this tensor's shape.
  public var gradient: Tensor? { node?.gradient?.reshaped(shape) }

  /// Where this tensor's gradient goes, without the tensor's numbers: what a backward rule captures
  /// of inputs it does not read.
  package var place: GradientPlace { GradientPlace(node: node, shape: shape) }

  /// This result with a place in the computation it came from, if any of `parents` has one.
  ///
  /// - Parameter backward: hands the gradients that follow from the result's to the places of the
  ///   parents. What it captures is what stays in memory until then.
  package func recorded(
    from parents: Tensor..., backward: @escaping (_ gradient: Tensor) -> Void
  ) -> Tensor {
    recorded(from: parents, backward: backward)
  }

  package func recorded(
    from parents: [Tensor], backward: @escaping (_ gradient: Tensor) -> Void
  ) -> Tensor {
    let nodes = parents.compactMap(\.node)
    guard !nodes.isEmpty else { return self }
    var copy = self
    let shape = shape
    copy.node = GradientNode(parents: nodes) { backward($0.reshaped(shape)) }
    return copy
  }
}

/// Where gradients of one tensor arrive; nowhere if it has no place in a computation.
package struct GradientPlace: Sendable {
  fileprivate let node: GradientNode?
  package let shape: [Int]

  package var isWanted: Bool { node != nil }

  /// Adds to the gradient; computed only where one is wanted.
  package func receive(_ gradient: @autoclosure () -> Tensor) {
    guard let node else { return }
    let arriving = gradient()
    precondition(arriving.count == shape.reduce(1, *), "gradient \(arriving.shape) of \(shape)")
    node.receive(arriving)
  }

  /// Lets `add` write into the gradient where it lies, for gradients that touch a part of it or that
  /// a kernel can add by itself. When `isFirst`, the memory holds nothing yet.
  package func accumulate(_ add: (UnsafeMutablePointer<Float>, _ isFirst: Bool) -> Void) {
    node?.accumulate(shape: shape, add)
  }

  /// As `accumulate`, on memory that starts as zeros.
  package func accumulate(_ add: (UnsafeMutablePointer<Float>) -> Void) {
    accumulate { target, isFirst in
      if isFirst { target.initialize(repeating: 0, count: shape.reduce(1, *)) }
      add(target)
    }
  }
}

/// Reverse-mode differentiation over the graph that tensors carry.
public enum Tape {
  /// Walks from results back to the leaves, whose gradients are added to what they hold.
  ///
  /// Each node is visited once, after everything computed from it, in an order that depends on the
  /// graph alone; what it kept for its rule is released on the way.
  ///
  /// - Parameter roots: results and the derivative of the loss with respect to each.
  public static func backward(_ roots: [(result: Tensor, gradient: Tensor)]) {
    var order: [GradientNode] = []
    var seen: Set<ObjectIdentifier> = []
    // Depth first without recursion: a node follows its parents in `order`.
    var stack: [(node: GradientNode, next: Int)] = []
    for (result, gradient) in roots {
      guard let node = result.node else { continue }
      node.receive(gradient.plain)
      guard seen.insert(ObjectIdentifier(node)).inserted else { continue }
      stack.append((node, 0))
      while let (node, next) = stack.last {
        guard next < node.parents.count else {
          order.append(node)
          stack.removeLast()
          continue
        }
        stack[stack.count - 1].next += 1
        let parent = node.parents[next]
        if seen.insert(ObjectIdentifier(parent)).inserted { stack.append((parent, 0)) }
      }
    }
    seen = []
    while let node = order.popLast() {
      guard let rule = node.backward else { continue }
      if let gradient = node.gradient { rule(gradient) }
      node.backward = nil
      node.parents = []
      node.clear()
    }
  }

  /// A computation that keeps only its input and computes the rest again on the way back (Chen et
  /// al. 2016, arXiv:1604.06174).
  ///
  /// - Parameter body: a deterministic function of `x` and leaves.
  package static func recomputing(_ x: Tensor, _ body: @escaping (Tensor) -> Tensor) -> Tensor {
    // What the first run recorded is released here; only the result stays.
    let result = body(x.plain).plain
    let input = x.node == nil ? x.asLeaf : x
    let (place, values) = (x.place, x.plain)
    return result.recorded(from: input) { gradient in
      let leaf = values.asLeaf
      backward([(body(leaf), gradient)])
      if let arrived = leaf.gradient { place.receive(arrived) }
    }
  }
}
