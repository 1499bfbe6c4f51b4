import Testing
import Training

struct TrainingErrorTests {
  @Test func errorsNameTheSettingItsValueAndWhatToDo() {
    let text = TrainingError.badSetting("--steps", value: "0", expected: "at least 1").description
    #expect(text == "--steps is 0, which must be at least 1. Correct the setting.")
  }
}
