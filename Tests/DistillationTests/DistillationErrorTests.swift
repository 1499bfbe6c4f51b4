import Distillation
import Testing

struct DistillationErrorTests {
  @Test func errorsNameTheSettingItsValueAndWhatToDo() {
    let text = DistillationError.badSetting("beta", value: "2", expected: "from 0 to 1").description
    #expect(text == "beta is 2, which must be from 0 to 1. Correct the setting.")
  }
}
