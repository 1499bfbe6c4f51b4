#!/usr/bin/env python3
"""Runs pare and llama.cpp on the same GGUF files, turn by turn.

    python Scripts/make-synthetic-model.py --out synthetic --vocabulary 32000
    python Benchmarks/runtime.py --pare .build/release/pare --model synthetic --work folder \\
        [--types q4_0,q8_0,q4_k_m,tq2_0,f16] [--threads 2,1] [--rounds 5] [--out llama.json]

`pare convert` writes each file once. A round runs each program as a process of its own, one after
the other, so that whatever else the machine does meets both: prefill of 512 random tokens and
decoding of 64 from an empty cache with the peak resident memory, then the start to the first token of
a 16-token prompt, without and with packed weights cached. Prints medians of the rounds' ratios with the least and the greatest. Needs
llama-cpp-python, which builds llama.cpp for this processor; made with 0.3.36.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

PROMPT, GENERATED, FIRST = 512, 64, 16


def llama(path: str, threads: int, only_first: bool) -> None:
    """The other program: prints its figures as JSON."""
    start = time.perf_counter()
    import llama_cpp as api
    imported = time.perf_counter() - start

    api.llama_backend_init()
    parameters = api.llama_model_default_params()
    model = api.llama_model_load_from_file(path.encode(), parameters)
    settings = api.llama_context_default_params()
    settings.n_ctx = 1024
    settings.n_batch = settings.n_ubatch = PROMPT
    settings.n_threads = settings.n_threads_batch = threads
    context = api.llama_init_from_model(model, settings)
    vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    ids = [(i * 7919 + 13) % vocabulary for i in range(PROMPT)]

    def read(tokens: list[int]) -> None:
        array = (api.llama_token * len(tokens))(*tokens)
        assert api.llama_decode(context, api.llama_batch_get_one(array, len(tokens))) == 0
        logits = api.llama_get_logits_ith(context, -1)
        _ = logits[0]

    def forget() -> None:
        api.llama_memory_clear(api.llama_get_memory(context), True)

    if only_first:
        read(ids[:FIRST])
        print(json.dumps({"seconds": time.perf_counter() - start - imported}))
        return
    read(ids[:32])
    forget()
    start = time.perf_counter()
    read(ids)
    prefill = PROMPT / (time.perf_counter() - start)
    forget()
    start = time.perf_counter()
    for i in range(GENERATED):
        read([ids[i]])
    decode = GENERATED / (time.perf_counter() - start)
    print(json.dumps({"prefill": prefill, "decode": decode}))


def run(command: list[str]) -> tuple[dict, int, float]:
    """A program's JSON, its peak resident bytes and its seconds."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"{' '.join(command)} failed")
        output.seek(0)
        return json.loads(output.read()), usage.ru_maxrss * 1024, seconds


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=3)
    parser.add_argument("--pare")
    parser.add_argument("--model")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--types", default="q4_0,q8_0,q4_k_m,tq2_0,f16")
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.child:
        path, threads, first = options.child
        llama(path, int(threads), first == "first")
        return
    me, rows = [sys.executable, __file__, "--child"], []
    options.work.mkdir(exist_ok=True)
    for kind in options.types.split(","):
        path = str(options.work / f"{kind}.gguf")
        if not os.path.exists(path):
            subprocess.run([options.pare, "convert", options.model, "--to", "gguf", "--type", kind,
                            "-o", path], check=True, stdout=subprocess.DEVNULL)
        # Made and mapped once, so that its pages are as warm as the file's.
        cache = options.work / "cache"
        cache.mkdir(exist_ok=True)
        for _ in range(2):
            run([options.pare, "bench", path, "--prompt-tokens", "1", "--generate-tokens", "1",
                 "--repeat", "1", "--cache", str(cache), "--json"])
        for threads in options.threads.split(","):
            figures: dict[str, list[float]] = {}

            def note(name: str, value: float) -> None:
                figures.setdefault(name, []).append(value)

            for _ in range(options.rounds):
                ours, _, _ = run([
                    options.pare, "bench", path, "--prompt-tokens", str(PROMPT),
                    "--generate-tokens", str(GENERATED), "--repeat", "1", "--threads", threads,
                    "--json"])
                theirs, _, _ = run([*me, path, threads, "speed"])
                start = [
                    options.pare, "bench", path, "--prompt-tokens", str(FIRST), "--generate-tokens",
                    "1", "--repeat", "1", "--threads", threads, "--no-warm-up", "--json"]
                first, _, _ = run(start)
                their_first, _, _ = run([*me, path, threads, "first"])
                cached, _, _ = run([*start, "--cache", str(cache)])
                note("decode", ours["decode_tokens_per_second"])
                note("decode ratio", ours["decode_tokens_per_second"] / theirs["decode"])
                note("share", ours["read_bandwidth_share"])
                note("memory", ours["peak_resident_bytes"])
                note("prefill", ours["prefill_tokens_per_second"])
                note("prefill ratio", ours["prefill_tokens_per_second"] / theirs["prefill"])
                for name, report in [("first ratio", first), ("cached ratio", cached)]:
                    ours = report["load_seconds"] + report["time_to_first_token_seconds"]
                    note(name, ours / their_first["seconds"])
                note("cached memory", cached["peak_resident_bytes"])
            row = {
                "type": kind, "threads": int(threads), "file_bytes": os.path.getsize(path),
                **{name: values for name, values in figures.items()}}
            rows.append(row)
            over = statistics.median(figures["memory"]) - os.path.getsize(path)
            print(f"{kind:7} {threads} threads: decode {spread(figures['decode'])} tokens/s, "
                  f"{spread(figures['decode ratio'])} of llama.cpp, share of bandwidth "
                  f"{spread(figures['share'])}; prefill {spread(figures['prefill'])}, "
                  f"{spread(figures['prefill ratio'])}; first token {spread(figures['first ratio'])} "
                  f"of its time, with a cache {spread(figures['cached ratio'])}; memory over the file {over / 1e6:.0f} MB", flush=True)
            if options.out:
                pathlib.Path(options.out).write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
