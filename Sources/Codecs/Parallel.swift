/// Calls the body for 0 ..< count; calls may run at the same time.
func inParallel(_ count: Int, _ body: (Int) -> Void) {
  for index in 0..<count { body(index) }
}
