#!/usr/bin/env python3
"""What every method of quantization costs in quality, at several bits, on several models.

    python3 Benchmarks/quantization.py --pare .build/release/pare --text valid.txt \
        --calibration train.txt --model NAME=FOLDER:64 … [--bits 8 4 3 2] [--methods …] \
        [--out quantization.json] [--append]

A model is named with its folder and its group size. Each result is compared with the original on
`--text` (KL, same top token, paired change of the negative log-likelihood), and with rounding to
nearest of the same bits by paired differences of the tokens' negative log-likelihoods. The protocol is
that of `pare eval divergence`. Needs Python 3 only.
"""
import argparse
import json
import math
import pathlib
import shutil
import subprocess
import tempfile

# A method's name, its flags, and the bits it is for (None: all).
METHODS: dict[str, tuple[list[str], list[int] | None]] = {
    "rtn": ([], None),
    "rtn mse": (["--clipping", "mse"], None),
    "hqq": (["--method", "hqq", "--asymmetric"], None),
    "gptq": (["--method", "gptq"], None),
    "gptq act-order": (["--method", "gptq", "--act-order"], None),
    "gptq mse": (["--method", "gptq", "--act-order", "--clipping", "mse"], None),
    "gptaq": (["--method", "gptaq", "--act-order"], None),
    "awq": (["--method", "awq"], None),
    "autoround": (["--method", "autoround"], [4, 3, 2]),
    "omniquant": (["--method", "omniquant", "--iterations", "5"], [4, 3, 2]),
    "zeroquant": (["--method", "zeroquant"], [8, 4, 3]),
    "spqr": (["--method", "spqr"], [4, 3]),
    "gptq + low rank 8": (["--method", "gptq", "--act-order", "--low-rank", "8"], [4, 3, 2]),
    "ternary": (["--method", "ternary"], [2]),
    "billm": (["--method", "billm"], [2]),
    "onebit": (["--method", "onebit"], [2]),
    "nf4": (["--format", "nf4"], [4]),
    "mxfp4": (["--format", "mxfp4-pack-quantized"], [4]),
    "nvfp4": (["--format", "nvfp4-pack-quantized"], [4]),
    "fp8": (["--format", "float-quantized", "--strategy", "channel"], [8]),
    "W8A8 rtn": (["--activations", "int8", "--strategy", "channel", "--format", "int-quantized"], [8]),
    "W8A8 smoothquant": (["--method", "smoothquant", "--strategy", "channel", "--format",
                          "int-quantized"], [8]),
    "llm-int8": (["--method", "llm-int8"], [8]),
    "W4A8 gptq": (["--method", "gptq", "--act-order", "--activations", "int8"], [4]),
}
CALIBRATED = {"gptq", "gptaq", "awq", "autoround", "omniquant", "zeroquant", "spqr", "billm",
              "smoothquant", "llm-int8"}


def run(command: list[str]) -> dict:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "failed")
    return json.loads(done.stdout)


def method_of(flags: list[str]) -> str:
    return flags[flags.index("--method") + 1] if "--method" in flags else "rtn"


def measure(options, folder: str, name: str, model: str, group: int, method: str, bits: int) -> dict:
    flags, _ = METHODS[method]
    out = f"{folder}/{method.replace(' ', '-').replace('+', '')}-{bits}"
    command = [options.pare, "quantize", model, *flags, "--bits", str(bits), "-o", out,
               "--evaluate", options.text, "--json", "--overwrite"]
    if "--strategy" not in flags and "--format" not in flags and method_of(flags) not in {
            "spqr", "billm", "onebit", "ternary", "llm-int8"}:
        command += ["--group-size", str(group)]
    if method_of(flags) in CALIBRATED:
        command += ["--calibration", options.calibration, "--samples", str(options.samples),
                    "--length", str(options.length)]
    report = run(command)
    measured = report["measurements"]
    row = {"model": name, "method": method, "bits": bits, "group_size": group,
           "bits_per_compressed_weight": report["bits_per_compressed_weight"],
           "seconds": report["seconds"], "peak_resident_bytes": report["peak_resident_bytes"]}
    row["perplexity"] = math.exp(measured["nll"])
    row["baseline_perplexity"] = math.exp(measured["baseline_nll"])
    for key in ["kl_mean", "kl_standard_error", "same_top", "delta_nll",
                "delta_nll_standard_error"]:
        row[key] = measured[key]
    reference = f"{folder}/rtn-{bits}"
    if method != "rtn" and pathlib.Path(reference).exists():
        paired = run([options.pare, "eval", "divergence", out, "--baseline", reference, "--file",
                      options.text, "--json"])
        row["nll_minus_rtn"] = paired["delta_nll"]
        row["nll_minus_rtn_standard_error"] = paired["delta_nll_standard_error"]
    if method != "rtn":
        shutil.rmtree(out, ignore_errors=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--model", action="append", required=True, help="NAME=FOLDER:GROUP")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--out", default="quantization.json")
    parser.add_argument("--append", action="store_true")
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    rows = json.loads(out.read_text())["rows"] if options.append and out.exists() else []
    for entry in options.model:
        name, _, rest = entry.partition("=")
        model, _, group = rest.rpartition(":")
        with tempfile.TemporaryDirectory() as folder:
            for bits in options.bits:
                for method in ["rtn"] + [m for m in options.methods if m != "rtn"]:
                    if METHODS[method][1] is not None and bits not in METHODS[method][1]:
                        continue
                    try:
                        row = measure(options, folder, name, model, int(group), method, bits)
                    except RuntimeError as error:
                        row = {"model": name, "method": method, "bits": bits, "refused": str(error)}
                    rows = [r for r in rows if (r["model"], r["method"], r["bits"]) !=
                            (name, method, bits)] + [row]
                    print(json.dumps(row), flush=True)
                    out.write_text(json.dumps({
                        "text": pathlib.Path(options.text).name,
                        "calibration": f"{options.samples} x {options.length} tokens of "
                                       f"{pathlib.Path(options.calibration).name}",
                        "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
