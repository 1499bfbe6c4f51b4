import ArgumentParser

@main
struct Pare: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Makes a large language model fit the device it must run on, and proves what that cost.")
}
