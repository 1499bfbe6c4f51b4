#!/usr/bin/env python3
"""Writes measured tables between the markers of README.md.

    python3 Scripts/update-readme.py --pare .build/release/pare [--bench FILE.json]
        [--runtime FILE.json] [--training FILE.json] [--distillation FILE.json …]
        [--quantization FILE.json]

The demo's table and that of the activations are measured now; the benchmarks' come from the files that
Benchmarks/spine.py, runtime.py, training.py, distillation.py and quantization.py wrote.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def demo(pare: str) -> str:
    rows = json.loads(subprocess.run([pare, "demo", "--json"], check=True,
                                     capture_output=True).stdout)
    cells = [[
        row["name"], f"{row['bytes'] / 1e6:.2f} MB", f"{row['bits_per_weight']:.2f}",
        f"{row['perplexity']:.3f} ± {row['perplexity_standard_error']:.3f}",
        "" if row["kl_mean"] is None
        else f"{row['kl_mean']:.4f} ± {row['kl_standard_error']:.4f}",
        "" if row["same_top"] is None else f"{row['same_top'] * 100:.1f} %",
    ] for row in rows]
    return table(["weights", "bytes", "bits per weight", "perplexity", "KL", "same top"], cells)


def activations(pare: str) -> str:
    """What int8 activations change, on the default model and the held-out stories."""
    resources = ROOT / "Sources/Recipes/Resources"
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ["q8_0", "q6_k", "q4_k_m", "q4_0", "q2_k", "tq2_0"]:
            file = f"{folder}/{kind}.gguf"
            subprocess.run([pare, "convert", resources / "stories", "--to", "gguf", "--type", kind,
                            "-o", file], check=True, capture_output=True)
            row = json.loads(subprocess.run(
                [pare, "eval", "divergence", file, "--baseline", file, "--activations", "int8",
                 "--file", resources / "held-out.txt", "--json"],
                check=True, capture_output=True).stdout)
            cells.append([
                kind, f"{row['kl_mean']:.6f} ± {row['kl_standard_error']:.6f}",
                f"{row['same_top'] * 100:.2f} %",
                f"{row['delta_nll']:+.5f} ± {row['delta_nll_standard_error']:.5f}"])
    return table(["weights", "KL of int8 from float32", "same top", "change of nll"], cells)


def runtime(path: str) -> str:
    def spread(values: list[float], decimals: int = 2) -> str:
        return (f"{statistics.median(values):.{decimals}f} "
                f"({min(values):.{decimals}f}–{max(values):.{decimals}f})")

    rows = json.loads(pathlib.Path(path).read_text())["rows"]
    return table(
        ["file", "threads", "decode, tokens/s", "of llama.cpp", "of read bandwidth",
         "prefill of 512, tokens/s", "of llama.cpp", "first token's time, of llama.cpp's",
         "with --cache", "memory over the file"],
        [[row["type"], str(row["threads"]), spread(row["decode"], 1), spread(row["decode ratio"]),
          spread(row["share"]), spread(row["prefill"], 0), spread(row["prefill ratio"]),
          spread(row["first ratio"]), spread(row["cached ratio"]),
          f"{(statistics.median(row['memory']) - row['file_bytes']) / 1e6:.0f} MB"]
         for row in rows])


def training(path: str) -> str:
    return table(
        ["model", "beside", "times as fast", "tokens/s", "peer's tokens/s", "peak memory", "peer's"],
        [[r["model"], r["peer"], f"{r['ratio']:.2f} ({r['least']:.2f}–{r['most']:.2f})",
          f"{r['tokens_per_second']:.0f}", f"{r['peer_tokens_per_second']:.0f}",
          f"{r['peak_resident_bytes'] / 1e6:.0f} MB", f"{r['peer_peak_resident_bytes'] / 1e6:.0f} MB"]
         for r in json.loads(pathlib.Path(path).read_text())])


def distillation(paths: list[str]) -> str:
    parts = []
    for path in paths:
        report = json.loads(pathlib.Path(path).read_text())
        parts.append(f"Teacher {report['teacher']}, student {report['shape']}, {report['tokens']} tokens:\n")
        parts.append(table(
            ["method", "perplexity", "KL to teacher", "ROUGE-L", "seconds"],
            [[r["method"], f"{r['perplexity']:.3f} ± {r['perplexity_deviation']:.3f}",
              f"{r['kl']:.4f} ± {r['kl_deviation']:.4f}", f"{r['rouge_l']:.3f} ± {r['rouge_l_deviation']:.3f}",
              f"{r['seconds']:.0f}"] for r in report["table"]]) + "\n")
        if report["recovery"]:
            parts.append(table(
                ["what lost", "nats lost per token", "left after", "won back", "seconds"],
                [[r["case"], f"{r['lost']:.4f}", f"{r['left']:.4f} ± {r['left_standard_error']:.4f}",
                  f"{r['won_back'] * 100:.0f} %", f"{r['seconds']:.0f}"] for r in report["recovery"]]) + "\n")
    return "\n".join(parts).rstrip()


def quantization(path: str) -> str:
    """KL of every method at 4 and 3 bits; the whole goes to Documentation/Quantization.md."""
    report = json.loads(pathlib.Path(path).read_text())
    models = list(dict.fromkeys(r["model"] for r in report["rows"]))
    by_key = {(r["model"], r["method"], r["bits"]): r for r in report["rows"]}
    methods = list(dict.fromkeys(r["method"] for r in report["rows"]))

    def cell(row: dict | None) -> str:
        if row is None:
            return ""
        if "refused" in row:
            return "refused"
        return f"{row['kl_mean']:.4f} ± {row['kl_standard_error']:.4f}"

    columns = [(m, b) for b in (8, 4, 3, 2) for m in models]
    rows = []
    for method in methods:
        cells = [cell(by_key.get((m, method, b))) for m, b in columns]
        if any(cells):
            rows.append([method, *cells])
    write_quantization(report, models)
    return table(["method", *(f"{b} bits, {m}" for m, b in columns)], rows)


def write_quantization(report: dict, models: list[str]) -> None:
    parts = ["# Quality of every method of quantization", "",
             f"Measured on {report['text']}, calibrated on {report['calibration']}, by "
             "`Benchmarks/quantization.py`. KL (of the original from the quantized model) and nll are in nats "
             "per token; \"nll - rtn's\" are paired differences of the same tokens from rounding to nearest "
             "of the same bits, with their standard error. Bits per weight are of the quantized matrices, scales "
             "and all else included.", ""]
    for model in models:
        rows = [r for r in report["rows"] if r["model"] == model]
        first = next(r for r in rows if "refused" not in r)
        parts += [f"## {model}", "", f"Perplexity of the original: {first['baseline_perplexity']:.4f}. Groups "
                  f"of {first['group_size']} where a method has groups.", ""]
        parts.append(table(
            ["method", "bits", "bits per weight", "perplexity", "KL", "same top", "nll - rtn's", "seconds"],
            [[r["method"], str(r["bits"]), *(["", "refused: " + r["refused"], "", "", "", ""]
              if "refused" in r else [
                f"{r['bits_per_compressed_weight']:.2f}", f"{r['perplexity']:.4f}",
                f"{r['kl_mean']:.5f} ± {r['kl_standard_error']:.5f}", f"{r['same_top'] * 100:.1f} %",
                "" if "nll_minus_rtn" not in r else
                f"{r['nll_minus_rtn']:+.5f} ± {r['nll_minus_rtn_standard_error']:.5f}",
                f"{r['seconds']:.1f}"])] for r in rows]))
        parts.append("")
    (ROOT / "Documentation/Quantization.md").write_text("\n".join(parts))


def bench(path: str) -> str:
    report = json.loads(pathlib.Path(path).read_text())
    return table(["measured", "value"], [[r["what"], r["value"]] for r in report["rows"]])


def replace(text: str, name: str, body: str) -> str:
    pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{body}\n{m[2]}", text, flags=re.S)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", required=True)
    parser.add_argument("--bench")
    parser.add_argument("--runtime")
    parser.add_argument("--training")
    parser.add_argument("--distillation", nargs="+")
    parser.add_argument("--quantization")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = replace(readme.read_text(), "demo", demo(options.pare))
    text = replace(text, "activations", activations(options.pare))
    if options.runtime:
        text = replace(text, "runtime", runtime(options.runtime))
    if options.bench:
        text = replace(text, "bench", bench(options.bench))
    if options.training:
        text = replace(text, "training", training(options.training))
    if options.distillation:
        text = replace(text, "distillation", distillation(options.distillation))
    if options.quantization:
        text = replace(text, "quantization", quantization(options.quantization))
    readme.write_text(text)


if __name__ == "__main__":
    main()
