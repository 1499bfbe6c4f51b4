#!/usr/bin/env python3
"""Times quantizing an F16 GGUF file by pare and by llama.cpp's quantizer, turn by turn.

    python Benchmarks/quantize.py --pare .build/release/pare --file f16.gguf --work folder \\
        [--types q8_0,q4_0,q4_k_m] [--threads 2] [--rounds 3]

`pare convert` reads every weight back after writing and compares digests before the file appears;
llama.cpp does not. The file system's cache is warm. Needs llama-cpp-python; made with 0.3.36.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

FILE_TYPES = {"q4_0": 2, "q8_0": 7, "q4_k_m": 15, "q6_k": 18, "tq2_0": 37}


def llama(source: str, target: str, kind: str, threads: int) -> None:
    import llama_cpp as api
    api.llama_backend_init()
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[kind]
    parameters.nthread = threads
    start = time.perf_counter()
    assert api.llama_model_quantize(source.encode(), target.encode(), parameters) == 0
    print(time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=4)
    parser.add_argument("--pare")
    parser.add_argument("--file")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--types", default="q8_0,q4_0,q4_k_m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.child:
        source, target, kind, threads = options.child
        llama(source, target, kind, int(threads))
        return
    environment = {**os.environ, "PARE_THREADS": str(options.threads)}
    for kind in options.types.split(","):
        ratios, ours, theirs = [], [], []
        for _ in range(options.rounds):
            target = str(options.work / "out.gguf")
            start = time.perf_counter()
            subprocess.run([options.pare, "convert", options.file, "--to", "gguf", "--type", kind,
                            "-o", target], check=True, env=environment, stdout=subprocess.DEVNULL)
            ours.append(time.perf_counter() - start)
            os.remove(target)
            result = subprocess.run(
                [sys.executable, __file__, "--child", options.file, target, kind,
                 str(options.threads)], check=True, capture_output=True, text=True)
            theirs.append(float(result.stdout.split()[-1]))
            os.remove(target)
            ratios.append(theirs[-1] / ours[-1])
        print(f"{kind}: pare {statistics.median(ours):.2f} s, llama.cpp "
              f"{statistics.median(theirs):.2f} s, {statistics.median(ratios):.2f} times as fast "
              f"({min(ratios):.2f}–{max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
