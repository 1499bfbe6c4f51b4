import Foundation
import TestSupport
import Testing
import Text

@Suite struct JSONTests {
  private func parse(_ text: String) throws(JSONError) -> JSON {
    try JSON.parse(Array(text.utf8), name: "test.json")
  }

  @Test func readsEveryKindOfValueInOrder() throws {
    let json = try parse(
      #"{"z": [1, -2.50, true, false, null], "a": {"é": "x\n\u00e9\ud83d\ude00\/"}}"#)
    #expect(json.object?.keys.map { String(decoding: $0, as: UTF8.self) } == ["z", "a"])
    #expect(json["z"]?.array?[0].int == 1)
    #expect(json["z"]?.array?[1].double == -2.5)
    #expect(json["a"]?["é"]?.string == "x\né😀/")
  }

  @Test func writesWhatItRead() throws {
    let text = #"{"b":[1,-0,1.50,1e5,12345678901234567890],"a":{},"c":[],"s":"\"\\\n\u0001é"}"#
    let json = try parse(text)
    #expect(String(decoding: json.serialized(), as: UTF8.self) == text)
    #expect(try JSON.parse(json.serialized(pretty: true), name: "again") == json)
  }

  @Test func prettyOutputIndentsByTwo() {
    let json: JSON = ["a": [1, 2.5], "b": nil, "c": [:]]
    let text = String(decoding: json.serialized(pretty: true), as: UTF8.self)
    #expect(
      text == "{\n  \"a\": [\n    1,\n    2.5\n  ],\n  \"b\": null,\n  \"c\": {}\n}\n")
  }

  @Test func keysAreBytesNotCanonicalEquivalents() throws {
    let json = try parse("{\"\u{E9}\": 1, \"e\u{301}\": 2}")
    #expect(json.object?.count == 2)
    #expect(json["\u{E9}"]?.int == 1)
    #expect(json["e\u{301}"]?.int == 2)
  }

  @Test func integersAreExactAndWholeDoublesCount() throws {
    let json = try parse("[9223372036854775807, 4096.0, 4e3, 0.5, 1e400, -7, 999999999999999999]")
    let numbers = try #require(json.array)
    #expect(numbers[1].int == 4096)
    #expect(numbers[2].int == 4000)
    #expect(numbers[3].int == nil)
    #expect(numbers[4].double == nil)
    #expect(numbers[5].int == -7)
    #expect(numbers[6].int == 999_999_999_999_999_999)
    #expect(numbers[0].int == .max)
  }

  @Test(arguments: [
    "", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "01", "-",
    "1.", ".5", "1e", "+1", "NaN", "Infinity", "nul", "truefalse", "\"", "\"\\", "\"\\x\"",
    "\"\\u12\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\u{1}\"", "1 2", "[1}",
    "\u{FEFF}1", "'a'", "[1] x",
  ])
  func refusesMalformedText(_ text: String) {
    #expect(throws: JSONError.self) { try parse(text) }
  }

  @Test(
    arguments: [
      [0x80], [0xC0, 0x80], [0xC3], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80],
      [0xF5, 0x80, 0x80, 0x80],
      [0xF4, 0x90, 0x80, 0x80], [0xF0, 0x9F, 0x98], [0xFF],
    ] as [[UInt8]])
  func refusesInvalidUTF8(_ bytes: [UInt8]) {
    #expect(throws: JSONError.self) {
      try JSON.parse([0x22] + bytes + [0x22], name: "test.json")
    }
  }

  @Test func namesThePlaceOfAnError() {
    #expect(
      throws: JSONError.malformed(
        file: "test.json", line: 3, column: 7, problem: "a value was expected here")
    ) { try parse("{\n \"x\": 1,\n \"é\": ?}") }
    #expect(
      throws: JSONError.duplicateKey(file: "test.json", line: 1, column: 9, key: "a")
    ) { try parse(#"{"a":1, "a":2}"#) }
  }

  @Test func findsDuplicatesAmongManyKeys() {
    let keys = (0..<1000).map { "\"k\($0)\":\($0)" } + ["\"k77\":0"]
    #expect(throws: JSONError.self) { try parse("{" + keys.joined(separator: ",") + "}") }
  }

  @Test func limitsDepthInsteadOfOverflowingTheStack() throws {
    let deep = String(repeating: "[", count: 256) + String(repeating: "]", count: 256)
    #expect(throws: Never.self) { try parse(deep) }
    #expect(throws: JSONError.self) { try parse("[" + deep + "]") }
    #expect(throws: JSONError.self) { try parse(String(repeating: "[{\"a\":", count: 1_000_000)) }
  }

  @Test func editsKeepOrder() throws {
    var object = try #require(try parse(#"{"a":1,"b":2,"c":3}"#).object)
    object["b"] = "two"
    object["a"] = nil
    object["d"] = true
    #expect(
      String(decoding: JSON.object(object).serialized(), as: UTF8.self)
        == #"{"b":"two","c":3,"d":true}"#)
  }

  @Test func thirtyMegabytesTakeAboutASecond() throws {
    var text = Array("{\"vocab\":{".utf8)
    for index in 0..<400_000 {
      text.append(contentsOf: "\"token number \(index)\": \(index),\n".utf8)
    }
    text.append(contentsOf: "\"end\":0},\"merges\":[".utf8)
    for index in 0..<500_000 { text.append(contentsOf: "[\"\(index)\", \"b\(index)\"],\n".utf8) }
    text.append(contentsOf: "[\"x\",\"y\"]]}".utf8)
    let clock = ContinuousClock()
    var json = JSON.null
    let elapsed = try clock.measure { json = try JSON.parse(text, name: "big.json") }
    #expect(json["vocab"]?["token number 399999"]?.int == 399_999)
    #expect(elapsed < .seconds(5), "\(text.count) bytes took \(elapsed)")
    print("JSON: \(text.count) bytes in \(elapsed)")
  }
}
