import Distillation
import Testing

struct StudentShapeTests {
  @Test func sizesAreReadInAnyOrder() throws {
    let shape = try StudentShape(parsing: "hidden=128, layers=4,keyValueHeads=2")
    #expect(shape == StudentShape(layers: 4, hidden: 128, keyValueHeads: 2))
    #expect(shape.description == "layers=4,hidden=128,keyValueHeads=2")
  }

  @Test(arguments: [
    ("", "\"\" is not a name, = and a number"), ("layers", "\"layers\" is not a name"),
    ("depth=3", "\"depth\" is none of layers, hidden"), ("layers=0", "must be a whole number"),
    ("layers=3,layers=3", "given twice"), ("heads=x", "heads must be a whole number"),
    ("layers=3,", "\"\" is not a name"), ("hidden=99999999999999999999", "must be a whole number"),
  ])
  func whatIsNoShapeIsRefused(_ text: String, _ reason: String) {
    let message = CacheFixture.message { _ = try StudentShape(parsing: text) }
    #expect(message.hasPrefix("the student's shape \(text) cannot be: "))
    #expect(message.contains(reason))
  }

  @Test func layersAreChosenAsAsked() throws {
    func chosen(_ text: String, _ wanted: Int?, of count: Int = 5) throws -> [Int] {
      try LayerChoice(parsing: text).layers(
        of: count, wanted: wanted, influence: [0.5, 0.1, 0.3, 0.1, 0.9])
    }
    #expect(try chosen("uniform", 3) == [0, 2, 4])
    #expect(try chosen("uniform", 2) == [0, 4])
    #expect(try chosen("uniform", 1) == [0])
    #expect(try chosen("uniform", nil) == [0, 1, 2, 3, 4])
    #expect(try chosen("first", 2) == [0, 1])
    #expect(try chosen("last", 2) == [3, 4])
    #expect(try chosen("1,2,4", nil) == [1, 2, 4])
    #expect(try chosen("importance", 3) == [0, 2, 4])
    #expect(try chosen("importance", 4) == [0, 1, 2, 4])
    for count in 1...12 {
      for wanted in 1...count {
        let layers = try LayerChoice.uniform.layers(of: count, wanted: wanted, influence: nil)
        #expect(Set(layers).count == wanted && layers == layers.sorted())
        #expect(layers.allSatisfy { (0..<count).contains($0) })
      }
    }
  }

  @Test(
    arguments: [("2,1", nil), ("0,5", nil), ("0,1", 3), ("first", 6), ("-1,2", nil)]
      as [(String, Int?)])
  func choicesThatCannotBeAreRefused(_ text: String, _ wanted: Int?) throws {
    let choice = try LayerChoice(parsing: text)
    #expect(throws: DistillationError.self) {
      try choice.layers(of: 5, wanted: wanted, influence: nil)
    }
  }

  @Test func choosingByImportanceNeedsASample() throws {
    #expect(
      CacheFixture.message {
        _ = try LayerChoice.importance.layers(of: 5, wanted: 3, influence: nil)
      } == "the sample that layers are chosen by is absent, which must be some text. "
        + "Correct the setting.")
    #expect(throws: DistillationError.self) { try LayerChoice(parsing: "middle") }
  }
}
