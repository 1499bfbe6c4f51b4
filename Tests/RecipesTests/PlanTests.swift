import Checkpoints
import Codecs
import Models
import Recipes
import TestSupport
import Testing

private func plan(
  _ model: TinyModel = TinyModel(), consumer: Consumer = .transformers,
  _ change: (inout QuantizeStage) -> Void
) throws -> Plan {
  try withTemporaryDirectory { folder in
    try model.write(to: folder)
    var stage = QuantizeStage()
    stage.granularity = .group(16)
    change(&stage)
    return try Compression(
      Recipe(name: "test", stages: [.quantize(stage)]), model: folder, consumer: consumer
    ).plan
  }
}

@Test func byDefaultEveryMatrixInsideTheBlocksIsQuantizedAndNothingElse() throws {
  let plan = try plan { _ in }
  for row in plan.rows {
    #expect(row.isQuantized == (row.tensor.block != nil && row.tensor.isMatrix), "\(row.name)")
  }
  #expect(plan.rows.filter(\.isQuantized).count == 14)
}

@Test func bitsPerWeightFollowFromTheShapes() throws {
  let plan = try plan { $0.bits = 4 }
  // 4-bit codes, a bf16 scale per 16 of them, two 64-bit numbers for the shape.
  let matrices = 2 * (2 * 48 * 48 + 2 * 16 * 48 + 3 * 48 * 80)
  let packed = matrices / 2 + matrices / 16 * 2 + 14 * 16
  #expect(plan.bitsPerCompressedWeight == Double(packed * 8) / Double(matrices))
  let others = 61 * 48 + 5 * 48
  #expect(plan.parameters == matrices + others)
  #expect(plan.bytesAfter == packed + others * 2)
}

@Test func aTargetThatMatchesNothingIsAnError() {
  #expect {
    try plan { $0.targets = [Target("mlp.sideways", line: 5)] }
  } throws: { error in
    "\(error)".contains("line 5") && "\(error)".contains("mlp.sideways")
  }
  #expect(throws: (any Error).self) { try plan { $0.ignore = [Target("nothing")] } }
}

@Test func blocksOutsideTheModelAreAnError() {
  #expect {
    try plan { $0.blocks = 1...2 }
  } throws: {
    "\($0)".contains("blocks 0-1")
  }
}

@Test func blocksAndIgnoreNarrowTheTargets() throws {
  let plan = try plan {
    $0.blocks = 1...1
    $0.ignore = [Target("attention.*")]
  }
  let quantized = plan.rows.filter(\.isQuantized)
  #expect(quantized.map(\.tensor.role) == [.gate, .up, .down])
  #expect(quantized.allSatisfy { $0.tensor.block == 1 })
}

@Test func aTensorTakenByTwoStagesIsAContradiction() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: folder)
    let recipe = try Recipe(
      yaml: """
        stages:
          - quantize: {bits: 4, group_size: 16}
          - quantize: {bits: 8, group_size: 16, targets: mlp.down}
        """, name: "twice")
    #expect {
      _ = try Compression(recipe, model: folder)
    } throws: {
      "\($0)".contains("down_proj") && "\($0)".contains("line 3")
    }
  }
}

@Test(arguments: [
  (QuantizeStage.Indivisible.smaller, AffineGroups.Granularity?.some(.group(16))),
  (.channel, .channel), (.skip, AffineGroups.Granularity?.none),
])
func inputsThatTheGroupDoesNotDivideGetWhatTheRecipeSays(
  choice: QuantizeStage.Indivisible, expected: AffineGroups.Granularity?
) throws {
  let plan = try plan {
    $0.granularity = .group(64)
    $0.indivisible = choice
    $0.targets = [Target("mlp.down")]
  }
  let row = try #require(plan.rows.first { $0.tensor.role == .down })
  switch row.action {
  case .quantize(let codec, _):
    #expect(codec.granularity == expected)
    #expect(row.notes.contains { $0.contains("64 does not divide 80") })
  case .keep(let reason):
    #expect(expected == nil)
    #expect(reason.contains("80"))
  case .drop: Issue.record("a matrix was dropped")
  }
}

@Test func aTiedHeadCannotBeTargetedAndAnUntiedOneCan() throws {
  #expect(throws: (any Error).self) { try plan { $0.targets = [Target("head")] } }
  let untied = try plan(TinyModel(isTied: false)) { $0.targets = [Target("head")] }
  #expect(untied.rows.filter(\.isQuantized).map(\.name) == ["lm_head.weight"])
}

@Test func whatAConsumerCannotOpenIsInThePlan() throws {
  let three = try plan(consumer: .vllm) {
    $0.bits = 3
    $0.isSymmetric = false
  }
  let notes = three.rows.flatMap(\.notes)
  #expect(notes.contains { $0.contains("3-bit zero points") })
  #expect(notes.contains { $0.contains("4 and 8 bits") })
  #expect(notes.contains { $0.contains("groups of 32, 64 or 128") })
}

@Test func estimatesAreStatedBeforeARun() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: folder)
    let estimate = try Compression(try Recipe.named("w4a16"), model: folder).estimate()
    #expect(estimate.seconds > 0)
    #expect(estimate.residentBytes > 0)
  }
}
