// swift-tools-version: 6.2
import PackageDescription

// The order of the targets is the reading order: a module imports only those above it.
let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("ExistentialAny"),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource] = [])
  -> Target
{
  .target(
    name: name, dependencies: dependencies, resources: resources, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = [])
  -> Target
{
  .testTarget(
    name: name, dependencies: dependencies, resources: resources, swiftSettings: strict)
}

let argumentParser = Target.Dependency.product(
  name: "ArgumentParser", package: "swift-argument-parser")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

let package = Package(
  name: "Pare",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "pare", targets: ["pare"]),
    .library(name: "Pare", targets: ["Recipes"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.0.0"),
  ],
  targets: [
    .target(name: "CKernels", linkerSettings: [.linkedLibrary("m")]),
    .systemLibrary(
      name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    module(
      "Tensors",
      ["CKernels", .target(name: "COpenBLAS", condition: .when(platforms: [.linux]))]),
    module(
      "LinearAlgebra",
      ["CKernels", "Tensors", .target(name: "COpenBLAS", condition: .when(platforms: [.linux]))]),
    module("Text"),
    module("Codecs", ["CKernels", "Tensors", "Text"]),
    module("Checkpoints", ["CKernels", "Tensors", "Codecs", "Text"]),
    module("Tokenizers", ["Text"]),
    module("Models", ["CKernels", "Tensors", "Codecs", "Text", "Checkpoints"]),
    module("Runtime", ["Tensors", "Checkpoints", "Models", "Tokenizers"]),
    module("Evaluation", ["CKernels", "Tensors", "Models", "Runtime", "Tokenizers"]),
    module(
      "Training",
      [
        "CKernels", "Tensors", "Codecs", "Text", "Checkpoints", "Tokenizers", "Models", "Runtime",
        "Evaluation",
      ]),
    module(
      "Calibration",
      [
        "CKernels", "Tensors", "LinearAlgebra", "Codecs", "Text", "Checkpoints", "Tokenizers",
        "Models", "Runtime", "Training",
      ]),
    module(
      "Quantization",
      [
        "CKernels", "Tensors", "LinearAlgebra", "Codecs", "Text", "Checkpoints", "Models",
        "Training", "Calibration",
      ]),
    module(
      "Search",
      [
        "Tensors", "Codecs", "Models", "Evaluation", "Training", "Calibration", "Quantization",
      ]),
    module(
      "Distillation",
      [
        "CKernels", "Tensors", "Codecs", "Text", "Checkpoints", "Tokenizers", "Models", "Runtime",
        "Evaluation", "Training",
      ]),
    module(
      "Recipes",
      [
        "Tensors", "Codecs", "Text", "Checkpoints", "Tokenizers", "Models", "Runtime",
        "Evaluation", "Training", "LinearAlgebra", "Calibration", "Quantization", "Search",
        "Distillation", yams,
      ], resources: [.copy("Resources/stories"), .copy("Resources/held-out.txt")]),
    .executableTarget(
      name: "pare",
      dependencies: [
        "Recipes", "Checkpoints", "Codecs", "Evaluation", "Models", "Runtime", "Tensors", "Text",
        "Tokenizers", "Training", "Distillation", "Calibration", "Quantization", argumentParser,
      ],
      path: "Sources/CommandLine",
      swiftSettings: strict),
    .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: strict),
    tests("TensorsTests", ["TestSupport"] + ["CKernels", "Tensors"]),
    tests("LinearAlgebraTests", ["TestSupport"] + ["CKernels", "Tensors", "LinearAlgebra"]),
    tests("CodecsTests", ["TestSupport"] + ["CKernels", "Tensors", "Text", "Codecs"]),
    tests("TextTests", ["TestSupport"] + ["Text"]),
    tests("CheckpointsTests", ["TestSupport"] + ["Tensors", "Text", "Codecs", "Checkpoints"]),
    tests("TokenizersTests", ["TestSupport"] + ["Text", "Tokenizers"]),
    tests("ModelsTests", ["TestSupport"] + ["Tensors", "Text", "Codecs", "Checkpoints", "Models"]),
    tests(
      "RuntimeTests",
      ["TestSupport"] + ["Tensors", "Models", "Tokenizers", "Runtime", "Checkpoints"]),
    tests(
      "EvaluationTests",
      ["TestSupport"] + [
        "Tensors", "Text", "Models", "Tokenizers", "Runtime", "Evaluation", "Checkpoints",
      ]),
    tests(
      "TrainingTests",
      ["TestSupport"] + [
        "CKernels", "Tensors", "Text", "Codecs", "Checkpoints", "Tokenizers", "Models", "Runtime",
        "Evaluation", "Training",
      ]),
    tests(
      "DistillationTests",
      ["TestSupport"] + [
        "CKernels", "Tensors", "Text", "Codecs", "Checkpoints", "Tokenizers", "Models", "Runtime",
        "Evaluation", "Training", "Distillation",
      ]),
    tests(
      "CalibrationTests",
      ["TestSupport"] + [
        "Tensors", "LinearAlgebra", "Text", "Codecs", "Checkpoints", "Tokenizers", "Models",
        "Training", "Calibration", "Quantization",
      ]),
    tests(
      "QuantizationTests",
      ["TestSupport"] + [
        "CKernels", "Tensors", "LinearAlgebra", "Text", "Codecs", "Checkpoints", "Models",
        "Training", "Calibration", "Quantization",
      ]),
    tests("SearchTests", ["TestSupport"] + ["Tensors", "Search"]),
    tests(
      "RecipesTests",
      ["TestSupport"] + [
        "Tensors", "LinearAlgebra", "Text", "Codecs", "Checkpoints", "Tokenizers", "Models",
        "Runtime", "Evaluation",
        "Training", "Calibration", "Quantization", "Distillation", "Recipes",
      ]),
    tests("CommandLineTests", ["TestSupport"] + ["pare", "Text", "Checkpoints"]),
  ]
)
