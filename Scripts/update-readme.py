#!/usr/bin/env python3
"""Writes measured tables between the markers of README.md.

    python3 Scripts/update-readme.py --pare .build/release/pare [--bench FILE.json]

The demo's table is measured now; the benchmark's comes from the file that Benchmarks/spine.py wrote.
"""
import argparse
import json
import pathlib
import re
import subprocess

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
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = replace(readme.read_text(), "demo", demo(options.pare))
    if options.bench:
        text = replace(text, "bench", bench(options.bench))
    readme.write_text(text)


if __name__ == "__main__":
    main()
