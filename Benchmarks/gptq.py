#!/usr/bin/env python3
"""GPTQ beside llm-compressor: the solve of single matrices, and a model of 1B shape.

    python3 Scripts/make-synthetic-model.py --out synthetic --layers 2
    python3 Benchmarks/gptq.py --pare .build/release/pare --model synthetic --peer PYTHON [--rounds 3]
        [--solve-only] [--out gptq.json]

PYTHON is an interpreter with llmcompressor. Both get the same 32 rows of 512 random token ids, 4 bits in
groups of 128, static act-order, two threads. The solve's seconds are those of the report (o, gate with up,
down: Cholesky and all, the second moment excluded) beside llm-compressor's `quantize_weight` on random
matrices of the same shapes; the model's are of the whole programs. Rounds alternate.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile
import time

SOLVE = """
import json, sys, time, torch
torch.set_num_threads(2)
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from compressed_tensors.quantization import QuantizationArgs
args = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=128,
                        actorder="static")
torch.manual_seed(0)
for out, inputs in [(2048, 2048), (8192, 2048), (2048, 8192)]:
    x = torch.rand(2 * inputs, inputs) - 0.5
    h = x.T @ x / len(x)
    w = (torch.rand(out, inputs) - 0.5) * 0.1
    s = w.view(out, inputs // 128, 128).abs().amax(-1) / 7.5
    z = torch.zeros_like(s, dtype=torch.int8)
    start = time.perf_counter()
    with torch.no_grad():
        quantize_weight(w.clone()[None], h.clone()[None], s[None], z[None], None, args)
    print(json.dumps({"shape": f"{out}x{inputs}", "seconds": time.perf_counter() - start}), flush=True)
"""

MODEL = """
import json, sys, torch
torch.set_num_threads(2)
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from transformers import AutoModelForCausalLM
rows = [json.loads(l) for l in open(sys.argv[2])]
data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
oneshot(model=model, dataset=data, max_seq_length=512, num_calibration_samples=len(rows),
        recipe=GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"]))
model.save_pretrained(sys.argv[3], save_compressed=True)
"""


def timed(command: list[str]) -> tuple[float, int, str]:
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "OMP_NUM_THREADS": "2"})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"{command[0]} failed")
        output.seek(0)
        return seconds, usage.ru_maxrss * 1024, output.read().decode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--solve-only", action="store_true")
    parser.add_argument("--out", default="gptq.json")
    options = parser.parse_args()
    config = json.loads(pathlib.Path(options.model, "config.json").read_text())
    rows: dict[str, list[tuple[float, float]]] = {}
    memory = []
    with tempfile.TemporaryDirectory() as folder:
        draw = random.Random(0)
        ids = pathlib.Path(folder, "ids.jsonl")
        ids.write_text("\n".join(
            json.dumps([draw.randrange(config["vocab_size"]) for _ in range(512)]) for _ in range(32)))
        for _ in range(options.rounds):
            ours, bytes_ours, text = timed([
                options.pare, "quantize", options.model, "--method", "gptq", "--act-order", "--bits", "4",
                "--group-size", "128", "--calibration", str(ids), "--calibration-token-ids", "--samples",
                "32", "--length", "512", "-o", f"{folder}/ours", "--overwrite", "--json"])
            tensors = {t["name"]: t["seconds"] for t in json.loads(text)["tensors"]}
            block = "model.layers.1."
            solve = {"2048x2048": tensors[block + "self_attn.o_proj.weight"],
                     "8192x2048": tensors[block + "mlp.gate_proj.weight"],
                     "2048x8192": tensors[block + "mlp.down_proj.weight"]}
            _, _, text = timed([options.peer, "-c", SOLVE])
            for line in text.splitlines():
                if line.startswith("{"):
                    row = json.loads(line)
                    rows.setdefault(row["shape"], []).append((solve[row["shape"]], row["seconds"]))
            if not options.solve_only:
                theirs, bytes_theirs, _ = timed(
                    [options.peer, "-c", MODEL, options.model, str(ids), f"{folder}/theirs"])
                shutil.rmtree(f"{folder}/theirs", ignore_errors=True)
                name = f"model, {config['num_hidden_layers']} blocks, 32 x 512 tokens"
                rows.setdefault(name, []).append((ours, theirs))
                memory.append((bytes_ours, bytes_theirs))
    table = []
    for name, pairs in rows.items():
        ratios = [b / a for a, b in pairs]
        table.append({"what": name, "seconds": statistics.median(a for a, _ in pairs),
                      "peer_seconds": statistics.median(b for _, b in pairs),
                      "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)})
    if memory:
        table[-1]["peak_resident_bytes"] = max(a for a, _ in memory)
        table[-1]["peer_peak_resident_bytes"] = max(b for _, b in memory)
    pathlib.Path(options.out).write_text(json.dumps(table, indent=1))
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
