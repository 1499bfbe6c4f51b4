import Checkpoints
import Codecs
import Models
import Tensors
import Text

/// One tensor of the model and what becomes of it.
struct QuantizedStep {
  enum Content {
    case dense(DType)
    /// The codes as they are.
    case carried(any WritableLayout)
    case requantized(Requantization, any WritableLayout)
  }
  var stored: ModelTensor
  var written: ModelTensor
  var content: Content
  var outputs: [TensorDeclaration]
  /// The grid of a carried matrix without its scales, for the description.
  var scheme: CompressedTensors.Scheme?
  var isAsymmetric = false
  var hasColumnOrder = false
}

/// Decides tensor by tensor.
struct QuantizedPlanner {
  let source: WeightSource
  let target: QuantizedTarget
  let dtype: DType?
  let requantizes: Bool
  var steps: [QuantizedStep] = []
  var rows: [ConversionPlan.Row] = []
  var notes: [String] = []
  var refusals: [ConversionError.Refusal] = []
  /// AWQ's one group size: the first that comes. Two levels: unknown, and per channel.
  var groupSize: Int??
  var bits: Set<Int> = []
  var rounded = 0
  var opened = 0

  init(source: WeightSource, target: QuantizedTarget, dtype: DType?, requantizes: Bool) {
    self.source = source
    self.target = target
    self.dtype = dtype
    self.requantizes = requantizes
  }

  var typeName: String {
    bits.isEmpty ? "dense" : bits.sorted().map { "\($0) bits" }.joined(separator: ", ")
  }

  mutating func add(_ stored: ModelTensor, _ written: ModelTensor) throws {
    let (storage, bytes) = source.storage(of: stored)
    var row = ConversionPlan.Row(
      name: written.name, source: source.storedName(stored.name), shape: written.shape,
      from: storage, to: "", bytesBefore: bytes, bytesAfter: 0)
    let isMatrix = stored.isMatrix && stored.role.canBeQuantized
    let weight = isMatrix ? try source.matrix(stored) as? any AffineWeight : nil
    var step: QuantizedStep
    if let weight, target.holds(stored.role) {
      guard let quantized = try quantized(weight, stored, written, &row) else { return }
      step = quantized
    } else {
      let info = source.checkpoint.info(source.storedName(stored.name))
      var type = dtype ?? info?.dtype ?? .float16
      if let weight {
        opened += 1
        row.note = "opened: \(target.rawValue) keeps it dense"
        let plain: DType? = weight.scaleType
        type = dtype ?? plain ?? .float16
      }
      if ![.float16, .bfloat16, .float32, .float64].contains(type) { type = .float16 }
      step = QuantizedStep(
        stored: stored, written: written, content: .dense(type),
        outputs: [TensorDeclaration(name: written.name, dtype: type, shape: written.shape)])
      row.to = type.rawValue
    }
    row.bytesAfter = step.outputs.reduce(0) { $0 + $1.byteCount }
    steps.append(step)
    rows.append(row)
  }

  private mutating func quantized(
    _ weight: any AffineWeight, _ stored: ModelTensor, _ written: ModelTensor,
    _ row: inout ConversionPlan.Row
  ) throws -> QuantizedStep? {
    do throws(CodecError) {
      let grid = try weight.openGrid()
      if groupSize == nil, target == .awq, grid.bits == 4 { groupSize = .some(grid.groupSize) }
      let layout = try target.layout(
        for: grid, groupSize: groupSize ?? nil, scaleType: scaleType)
      let planned = try layout.plan(grid)
      if planned.rounding != nil { rounded += 1 }
      row.note = planned.rounding
      return step(stored, written, .carried(layout), grid, planned, &row)
    } catch {
      guard requantizes else {
        refusals.append(.init(tensor: row.source ?? row.name, reason: error.description))
        return nil
      }
      guard
        let choice = Requantization(
          of: weight, for: target, groupSize: target == .awq ? groupSize : nil,
          scaleType: scaleType)
      else {
        refusals.append(
          .init(
            tensor: row.source ?? row.name,
            reason: "no group size of \(target.rawValue) divides its \(weight.inputs) columns."))
        return nil
      }
      if target == .awq, groupSize == nil { groupSize = .some(choice.groupSize) }
      row.note = "rounded anew"
      let grid = OpenGrid.blank(choice, outputs: weight.outputs, inputs: weight.inputs)
      do throws(CodecError) {
        let layout = try target.layout(
          for: grid, groupSize: choice.groupSize, scaleType: scaleType)
        return step(
          stored, written, .requantized(choice, layout), grid, try layout.plan(grid), &row)
      } catch {
        refusals.append(.init(tensor: row.source ?? row.name, reason: error.description))
        return nil
      }
    }
  }

  private var scaleType: DType? { dtype == .float64 ? .float32 : dtype }

  private mutating func step(
    _ stored: ModelTensor, _ written: ModelTensor, _ content: QuantizedStep.Content,
    _ grid: OpenGrid,
    _ planned: LayoutPlan, _ row: inout ConversionPlan.Row
  ) -> QuantizedStep {
    bits.insert(grid.bits)
    row.to = "\(grid.bits) bits"
    return QuantizedStep(
      stored: stored, written: written, content: content,
      outputs: planned.components.map {
        TensorDeclaration(name: "\(written.module).\($0.suffix)", dtype: $0.dtype, shape: $0.shape)
      },
      scheme: CompressedTensorsLayout(scaleType: grid.scales.dtype).scheme(grid),
      isAsymmetric: !grid.isSymmetric, hasColumnOrder: grid.groupIndex != nil)
  }

  mutating func finish() throws {
    guard refusals.isEmpty else {
      throw ConversionError.refused(
        refusals, target: target.rawValue, path: source.checkpoint.path)
    }
    guard !bits.isEmpty || target.allowsDenseModels else {
      throw ConversionError.nothingQuantized(
        target: target.rawValue, path: source.checkpoint.path)
    }
    if target == .compressedTensors { unifySchemes() }
    let anew = rows.count { $0.note == "rounded anew" }
    if anew > 0 { notes.append("\(anew) matrices are rounded anew, to the nearest") }
    if rounded > 0 {
      notes.append(
        "codes and zero points stay; of \(rounded) matrices "
          + "\(rows.first { $0.note?.contains("rounded to") == true }?.note ?? "scales")")
    }
    if target == .gptq, steps.contains(where: \.isAsymmetric) {
      notes.append(
        "GPTQModel opens asymmetric models of version 1 only where it wrote them; gptq-v2 it opens")
    }
    if opened > 0 {
      notes.append("\(opened) quantized tensors become dense: \(target.rawValue) has no form")
    }
  }

  /// One scheme where symmetric and asymmetric matrices differ in nothing else: readers open a
  /// model of one scheme more readily than one of two.
  private mutating func unifySchemes() {
    var mixed: Set<CompressedTensors.Scheme> = []
    for step in steps {
      guard var scheme = step.scheme, !scheme.isSymmetric else { continue }
      scheme.isSymmetric = true
      mixed.insert(scheme)
    }
    for index in steps.indices {
      guard var scheme = steps[index].scheme, mixed.contains(scheme),
        case .carried(var layout as CompressedTensorsLayout) = steps[index].content
      else { continue }
      layout.keepsZeroPoints = true
      scheme.isSymmetric = false
      steps[index].content = .carried(layout)
      steps[index].scheme = scheme
      let written = steps[index].written
      guard
        let codec = try? scheme.codec(scaleType: layout.scaleType)
      else { continue }
      steps[index].outputs =
        codec.componentShapes(outputs: written.outputs, inputs: written.inputs).map {
          TensorDeclaration(
            name: "\(written.module).\($0.suffix)", dtype: $0.dtype, shape: $0.shape)
        } + steps[index].outputs.filter { $0.name.hasSuffix("weight_g_idx") }
      rows[index].bytesAfter = steps[index].outputs.reduce(0) { $0 + $1.byteCount }
    }
  }
}

extension QuantizedStep {
  var layout: (any WritableLayout)? {
    switch content {
    case .dense: nil
    case .carried(let layout), .requantized(_, let layout): layout
    }
  }
}

extension OpenGrid {
  /// A grid of these sizes with scales of 1, to plan what will be written.
  fileprivate static func blank(_ choice: Requantization, outputs: Int, inputs: Int) -> OpenGrid {
    let groups = choice.groupSize.map { inputs / $0 } ?? 1
    let zero = UInt8(1 << (choice.bits - 1))
    var zeros = [UInt8](repeating: zero, count: outputs * groups)
    // Stands for zero points that are not known yet.
    if !choice.isSymmetric, !zeros.isEmpty { zeros[0] = 1 }
    return OpenGrid(
      bits: choice.bits, outputs: outputs, inputs: inputs, groupSize: choice.groupSize,
      scales: Tensor([Float](repeating: 1, count: outputs * groups), shape: [outputs, groups])
        .converted(to: choice.scaleType), zeros: zeros)
  }
}

extension StoredWeight {
  /// The type of a quantized matrix's scales, in which an opened one is written.
  fileprivate var scaleType: DType? {
    switch self {
    case let groups as GroupQuantizedWeight: groups.codec.scaleType
    case let biased as BiasedGroupWeight: biased.biases.dtype
    default: nil
    }
  }
}
