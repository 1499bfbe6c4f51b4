#!/usr/bin/env python3
"""Measures loading, running and quantizing a model of real size.

    python3 Scripts/make-synthetic-model.py --out synthetic
    python3 Benchmarks/spine.py --pare .build/release/pare --model synthetic [--out spine.json]

Each figure is the median of `--repeat` runs, with the least and the greatest. The file system's cache
is warm. Quantization's rate is bytes read over seconds, beside memcpy of the same machine measured
between the runs. Needs Python 3 only.
"""
import argparse
import ctypes
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time


def timed(command: list[str]) -> tuple[float, int, bytes]:
    """Seconds, peak resident bytes and stdout of a program."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"{' '.join(command)} failed")
        output.seek(0)
        return seconds, usage.ru_maxrss * 1024, output.read()


def memory_copy_rate(size: int = 1 << 28) -> float:
    """Bytes copied per second, the best of five: read and written once each."""
    a, b = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    ctypes.memset(a, 1, size)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        ctypes.memmove(b, a, size)
        best = max(best, size / (time.perf_counter() - start))
    return best


def spread(values: list[float], unit: str, scale: float = 1, decimals: int = 2) -> str:
    scaled = [v / scale for v in values]
    return (f"{statistics.median(scaled):.{decimals}f} {unit} "
            f"({min(scaled):.{decimals}f}–{max(scaled):.{decimals}f})")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", required=True)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", default="spine.json")
    options = parser.parse_args()
    pare, model = options.pare, str(options.model)
    size = sum(f.stat().st_size for f in options.model.glob("*.safetensors"))
    prompt = "Once upon a time there was a"
    rows = []

    def add(what: str, value: str) -> None:
        rows.append({"what": what, "value": value})
        print(f"{what}: {value}", flush=True)

    work = tempfile.mkdtemp(dir=options.model.parent)
    try:
        results = {"quantize": [], "memory": [], "copy": [], "first": [], "speed": [],
                   "run memory": []}
        for turn in range(options.repeat):
            out = f"{work}/{turn}"
            seconds, memory, _ = timed([pare, "quantize", model, "-o", out, "--bits", "4",
                                        "--group-size", "64"])
            results["quantize"].append(size / seconds)
            results["memory"].append(memory)
            results["copy"].append(memory_copy_rate())
            seconds, memory, text = timed([pare, "run", model, "--prompt", prompt, "-n", "1",
                                           "--json"])
            results["first"].append(seconds)
            _, memory, text = timed([pare, "run", model, "--prompt", prompt, "-n", "24", "--json"])
            results["speed"].append(json.loads(text)["tokens_per_second"])
            results["run memory"].append(memory)
            _, memory, text = timed([pare, "run", out, "--prompt", prompt, "-n", "24", "--json"])
            results.setdefault("packed speed", []).append(json.loads(text)["tokens_per_second"])
            results.setdefault("packed memory", []).append(memory)
            if turn + 1 < options.repeat:
                shutil.rmtree(out)
        add("weights", f"{size / 1e9:.2f} GB")
        add("start to first token, bf16", spread(results["first"], "s"))
        add("decode, bf16", spread(results["speed"], "tokens/s", decimals=1))
        add("decode, 4 bits g64", spread(results["packed speed"], "tokens/s", decimals=1))
        add("quantize to 4 bits g64, everything included", spread(results["quantize"], "GB/s", 1e9))
        add("memcpy of this machine, one thread", spread(results["copy"], "GB/s", 1e9, 1))
        add("peak memory of quantizing", spread(results["memory"], "MB", 1e6, 0))
        add("peak memory of running, bf16 (mapped weights included)",
            spread(results["run memory"], "MB", 1e6, 0))
        add("peak memory of running, 4 bits", spread(results["packed memory"], "MB", 1e6, 0))
    finally:
        shutil.rmtree(work)
    pathlib.Path(options.out).write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
