import Checkpoints
import Distillation
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Text

struct StudentCutTests {
  private static let golden = SharedFiles.packageRoot.appending(
    path: "Tests/Golden/architectures")
  static let models = ((try? FileManager.default.contentsOfDirectory(atPath: golden.path)) ?? [])
    .filter { !$0.hasPrefix(".") }.sorted()

  private static let text: [(tokens: [Int], segments: [Range<Int>])] = [
    ((0..<32).map { $0 * 5 % 61 }, [0..<20, 20..<32])
  ]

  private func load(_ name: String) throws -> LanguageModel {
    try LanguageModel.load(Self.golden.appending(path: name).path)
  }

  private func written(_ cut: StudentCut, _ folder: String) throws -> LanguageModel {
    let path = "\(folder)/\(UUID())"
    let output = try OutputDirectory(path, overwrite: false)
    try cut.write(to: output)
    try output.finish()
    return try LanguageModel.load(path)
  }

  private func logits(_ model: LanguageModel) throws -> [Float] {
    let (tokens, segments) = Self.text[0]
    return model.logits(try model.hidden(tokens: tokens, segments: segments)).array
  }

  @Test(arguments: models)
  func aStudentThatTakesAllIsItsTeacherBitForBit(_ name: String) throws {
    let teacher = try load(name)
    try withTemporaryDirectory { folder in
      let importance = try StudentImportance.measure(teacher, batches: Self.text)
      let attention = teacher.blocks[0].configuration.attention
      let whole = StudentShape(
        layers: teacher.blocks.count, hidden: teacher.configuration.hiddenSize,
        heads: attention.heads, keyValueHeads: attention.keyValueHeads,
        intermediate: teacher.blocks[0].configuration.feedForward.intermediateSize)
      let student = try written(
        StudentCut(teacher, shape: whole, layers: .importance, importance: importance), folder)
      for name in student.checkpoint.names {
        let tensor = try student.checkpoint.tensor(name)
        let bare = String(name.dropFirst(teacher.configuration.basePrefix.count))
        let original = try teacher.checkpoint.tensor(
          teacher.checkpoint.contains(name) ? name : bare)
        #expect(tensor.dtype == original.dtype && tensor.shape == original.shape)
        #expect(Array(tensor.bytes) == Array(original.bytes), "\(name)")
      }
      #expect(try logits(student) == logits(teacher))
    }
  }

  /// The student's blocks against the same teacher with blocks left out, in every family.
  @Test(arguments: models)
  func aShallowStudentComputesItsTeachersChosenBlocks(_ name: String) throws {
    var teacher = try load(name)
    let last = teacher.blocks.count - 1
    // GPT-2 may scale by the layer's number; such a model cannot lose an early layer.
    if name == "gpt2-layer-scaled" {
      #expect(
        CacheFixture.message { _ = try StudentCut(teacher, shape: .init(), layers: .list([last])) }
          .contains("its layer \(last) would work otherwise in place 0"))
      return
    }
    try withTemporaryDirectory { folder in
      let student = try written(
        StudentCut(teacher, shape: .init(layers: 1), layers: .last), folder)
      #expect(student.blocks.count == 1)
      teacher.blocks = [teacher.blocks[last]]
      #expect(try logits(student) == logits(teacher))
    }
  }

  /// Cut widths against an oracle that zeroes what is left out: heads and neurons that give nothing
  /// are the same as none.
  @Test(arguments: ["llama2", "llama3", "mistral", "qwen2", "qwen3", "llama-biases-multi-query"])
  func headsAndNeuronsThatAreLeftOutAreAsIfTheyGaveNothing(_ name: String) throws {
    let teacher = try load(name)
    let attention = teacher.blocks[0].configuration.attention
    let importance = try StudentImportance.measure(teacher, batches: Self.text)
    let group = attention.heads / attention.keyValueHeads
    // Half of the groups where there are several, else half of each group's heads.
    let keyValueHeads = max(1, attention.keyValueHeads / 2)
    let perGroup = attention.keyValueHeads > 1 ? group : max(1, group / 2)
    let intermediate = teacher.blocks[0].configuration.feedForward.intermediateSize / 2
    try withTemporaryDirectory { folder in
      let student = try written(
        StudentCut(
          teacher,
          shape: .init(
            heads: keyValueHeads * perGroup, keyValueHeads: keyValueHeads,
            intermediate: intermediate), importance: importance), folder)
      var silenced = teacher
      for index in teacher.blocks.indices {
        let scores = importance.heads[index]
        let groups = (0..<attention.keyValueHeads).map { g in
          (g * group..<(g + 1) * group).reduce(0) { $0 + scores[$1] }
        }
        let kept = groups.indices.sorted { groups[$0] > groups[$1] }.prefix(keyValueHeads)
        let heads = kept.flatMap { g in
          (g * group..<(g + 1) * group).sorted { scores[$0] > scores[$1] }.prefix(perGroup)
        }
        let neurons = importance.intermediate[index]
        let best = neurons.indices.sorted { neurons[$0] > neurons[$1] }.prefix(intermediate)
        silenced.blocks[index].attentionOutput.weight = silencing(
          teacher.blocks[index].attentionOutput.weight
        ) { heads.contains($0 / attention.headDim) }
        silenced.blocks[index].feedForwardOutput.weight = silencing(
          teacher.blocks[index].feedForwardOutput.weight
        ) { best.contains($0) }
      }
      let (a, b) = (try logits(student), try logits(silenced))
      #expect(zip(a, b).allSatisfy { abs($0 - $1) < 2e-3 * (1 + abs($1)) })
      #expect(try logits(teacher) != b)
    }
  }

  private func silencing(_ weight: any Weight, keeping: (Int) -> Bool) -> DenseWeight {
    var values = weight.dequantized().array
    for index in values.indices where !keeping(index % weight.inputs) { values[index] = 0 }
    return DenseWeight(Tensor(values, shape: [weight.outputs, weight.inputs]))
  }

  @Test(arguments: [true, false])
  func hiddenChannelsAreCutEverywhereAlike(_ tied: Bool) throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder, CacheFixture.config(tied: tied))
      var importance = try StudentImportance.measure(
        teacher, batches: [(Array(0..<40), [0..<40])])
      let kept = [1, 2, 5, 7, 8, 11, 13, 17, 19, 20]
      for channel in importance.hidden.indices {
        importance.hidden[channel] = kept.contains(channel) ? 2 : 1
      }
      let student = try written(
        StudentCut(teacher, shape: .init(hidden: 10), importance: importance), folder)
      #expect(student.configuration.hiddenSize == 10)
      #expect(student.configuration.blocks[0].attention.headDim == 6)
      func check(_ name: String, _ rows: [Int]?, _ columns: [Int]?) throws {
        let (old, new) = (try teacher.checkpoint.tensor(name), try student.checkpoint.tensor(name))
        let width = old.shape.count > 1 ? old.shape[1] : 1
        let expected = (rows ?? Array(0..<old.shape[0])).flatMap { row in
          (columns ?? Array(0..<width)).map { old.array[row * width + $0] }
        }
        #expect(new.array == expected, "\(name)")
      }
      try check("model.embed_tokens.weight", nil, kept)
      if !tied { try check("lm_head.weight", nil, kept) }
      try check("model.norm.weight", kept, nil)
      for layer in 0..<4 {
        let name = "model.layers.\(layer)"
        for norm in ["input_layernorm", "post_attention_layernorm"] {
          try check("\(name).\(norm).weight", kept, nil)
        }
        for linear in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] {
          try check("\(name).\(linear).weight", nil, kept)
        }
        for linear in ["mlp.gate_proj", "mlp.up_proj"] {
          try check("\(name).\(linear).weight", nil, kept)
        }
        for linear in ["self_attn.o_proj", "mlp.down_proj"] {
          try check("\(name).\(linear).weight", kept, nil)
        }
      }
    }
  }

  @Test func widthsOfOtherFamiliesAreRefused() throws {
    for name in ["gpt2", "gemma3", "phi3", "bloom", "opt"] {
      let teacher = try load(name)
      let importance = try StudentImportance.measure(teacher, batches: Self.text)
      let message = CacheFixture.message {
        _ = try StudentCut(teacher, shape: .init(intermediate: 8), importance: importance)
      }
      #expect(message.contains("models cannot be cut, only layers"), "\(message)")
    }
  }

  @Test(arguments: [
    ("hidden=25", "hidden is more than the teacher's 24"),
    ("heads=3,keyValueHeads=2", "3 heads are no multiple of 2 keyValueHeads"),
    ("keyValueHeads=1", "the student cannot have 4"),
  ])
  func widthsThatTheTeacherDoesNotHaveAreRefused(_ shape: String, _ reason: String) throws {
    try withTemporaryDirectory { folder in
      let teacher = try CacheFixture.model(folder)
      let importance = try StudentImportance.measure(teacher, batches: [([1, 2], [0..<2])])
      let shape = try StudentShape(parsing: shape)
      #expect(
        CacheFixture.message { _ = try StudentCut(teacher, shape: shape, importance: importance) }
          .contains(reason))
      #expect(
        CacheFixture.message { _ = try StudentCut(teacher, shape: .init(hidden: 8)) }
          .hasPrefix("the sample that widths are chosen by is absent"))
    }
  }
}

struct StudentImportanceTests {
  /// Against sums in Double over states that an observer saw.
  @Test func influenceIsOneMinusTheMeanCosine() throws {
    try withTemporaryDirectory { folder in
      let model = try CacheFixture.model(folder)
      let tokens = (0..<30).map { $0 * 3 % 98 }
      let importance = try StudentImportance.measure(
        model, batches: [(Array(tokens[..<12]), [0..<12]), (Array(tokens[12...]), [0..<18])])
      var states: [Tensor] = []
      var observer = PassObserver()
      observer.onEmbedding = { states.append($0) }
      observer.onBlock = { states.append($1) }
      _ = try model.hidden(tokens: tokens, segments: [0..<12, 12..<30], observer: observer)
      for block in model.blocks.indices {
        var sum = 0.0
        for row in 0..<30 {
          let (x, y) = (
            states[block].array[(row * 24)..<(row * 24 + 24)].map(Double.init),
            states[block + 1].array[(row * 24)..<(row * 24 + 24)].map(Double.init)
          )
          let product = zip(x, y).reduce(0) { $0 + $1.0 * $1.1 }
          let squares = x.reduce(0) { $0 + $1 * $1 } * y.reduce(0) { $0 + $1 * $1 }
          sum += 1 - product / squares.squareRoot()
        }
        #expect(abs(importance.layers[block] - sum / 30) < 1e-5)
      }
      #expect(importance.tokens == 30)
    }
  }

  @Test func aHeadWithoutValuesAndANeuronWithoutGateCountNothing() throws {
    try withTemporaryDirectory { folder in
      var model = try CacheFixture.model(folder)
      func without(_ weight: any Weight, _ rows: Range<Int>) -> DenseWeight {
        var values = weight.dequantized().array
        for row in rows {
          for column in 0..<weight.inputs { values[row * weight.inputs + column] = 0 }
        }
        return DenseWeight(Tensor(values, shape: [weight.outputs, weight.inputs]))
      }
      // The second key-value head serves heads 2 and 3.
      model.blocks[1].attentionInputs[2].weight = without(
        model.blocks[1].attentionInputs[2].weight, 6..<12)
      model.blocks[2].feedForwardInputs[0].weight = without(
        model.blocks[2].feedForwardInputs[0].weight, 7..<8)
      let importance = try StudentImportance.measure(model, batches: [([5, 6, 7], [0..<3])])
      #expect(importance.heads[1].map { $0 == 0 } == [false, false, true, true])
      #expect(
        importance.intermediate[2].indices.filter { importance.intermediate[2][$0] == 0 } == [7])
    }
  }
}

struct RandomStudentTests {
  private func student(_ folder: String, _ teacher: JSON, _ shape: String) throws -> LanguageModel {
    let teacher = try CacheFixture.model(folder, teacher)
    let student = try RandomStudent(
      teacher: teacher.checkpoint, shape: StudentShape(parsing: shape))
    let path = "\(folder)/\(UUID())"
    let output = try OutputDirectory(path, overwrite: false)
    try student.write(to: output, seed: 4)
    try output.finish()
    return try LanguageModel.load(path)
  }

  @Test func whatIsNotStatedFollowsTheTeacher() throws {
    try withTemporaryDirectory { folder in
      let student = try student(folder, CacheFixture.config(), "layers=2,hidden=16")
      let block = student.configuration.blocks[0]
      #expect(student.configuration.hiddenSize == 16 && student.blocks.count == 2)
      #expect(block.attention.heads == 4 && block.attention.headDim == 4)
      #expect(block.attention.keyValueHeads == 2 && block.feedForward.intermediateSize == 40)
      #expect(student.configuration.vocabularySize == CacheFixture.vocabulary)
      #expect(student.configuration.blocks[0].attentionNorms.before?.epsilon == 1e-5)
    }
  }

  @Test(arguments: [
    ("hidden=18", "hidden 18 does not divide by 4 heads"),
    ("hidden=12", "heads of 3 channels cannot be rotated in pairs"),
    ("heads=3", "3 heads are no multiple of 2 keyValueHeads"),
  ])
  func sizesThatDoNotGoTogetherAreRefused(_ shape: String, _ reason: String) throws {
    try withTemporaryDirectory { folder in
      let message = CacheFixture.message { _ = try student(folder, CacheFixture.config(), shape) }
      #expect(message.contains(reason), "\(message)")
    }
  }

  @Test(arguments: StudentCutTests.models)
  func everyFamilyHasDeeperAndShallowerStudents(_ name: String) throws {
    let path = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures/\(name)").path
    let teacher = try LanguageModel.load(path)
    for layers in [1, 5] {
      let student = try RandomStudent(teacher: teacher.checkpoint, shape: .init(layers: layers))
      #expect(student.configuration.blocks.count == layers)
    }
  }
}
