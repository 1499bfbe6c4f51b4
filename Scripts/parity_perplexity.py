#!/usr/bin/env python3
"""Perplexities of the shared models by transformers, under the protocols of `pare eval perplexity`.

    python Scripts/parity_perplexity.py [--pare .build/release/pare]

Writes the figures to Tests/Golden/perplexity.json, which a test compares with ours; with --pare also
compares the program at once. Float32 logits, log-probabilities summed in float64. Checked with torch
2.15.0, transformers 5.24.0.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
TEXT = "corpora/tinystories/valid.txt"
CASES = [
    ("models/stories260K", dict(window=512)),
    ("models/stories260K", dict(window=256, stride=128, bos=True)),
    ("models/babyllama-tok361", dict(window=256)),
    ("models/babyllama-tok361", dict(window=256, bos=True)),
]


@torch.inference_mode()
def measure(name: str, window: int, stride: int | None = None, bos: bool = False):
    model = AutoModelForCausalLM.from_pretrained(SHARED / name, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(SHARED / name / "tokenizer.json"))
    text = (SHARED / TEXT).read_text(encoding="utf-8")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    lead = [model.config.bos_token_id] if bos else []
    content = window - len(lead)
    stride = stride or content
    total, count, scored_end = 0.0, 0, 0
    for start in range(0, len(ids), stride):
        end = min(start + content, len(ids))
        tokens = torch.tensor(lead + ids[start:end])
        first = max(1, len(lead) + scored_end - start)
        if len(tokens) > first:
            logits = model(tokens[None]).logits[0].double()
            logp = logits.log_softmax(-1)[first - 1:-1].gather(1, tokens[first:, None])
            total -= logp.sum().item()
            count += len(tokens) - first
        scored_end = end
        if end == len(ids):
            break
    nll = total / count
    return {"model": name, "window": window, "stride": stride, "bos": bos, "tokens": count,
            "nll": nll, "perplexity": math.exp(nll)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare")
    options = parser.parse_args()
    rows, failed = [], False
    for name, protocol in CASES:
        row = measure(name, **protocol)
        rows.append(row)
        line = f"{name} {protocol}: {row['perplexity']:.6f}"
        if options.pare:
            command = [options.pare, "eval", "perplexity", SHARED / name, "--file", SHARED / TEXT,
                       "--window", str(row["window"]), "--stride", str(row["stride"]), "--json"]
            ours = json.loads(subprocess.run(command + ["--bos"] * row["bos"], check=True,
                                             capture_output=True).stdout)
            difference = abs(ours["perplexity"] / row["perplexity"] - 1)
            failed |= difference > 1e-4 or ours["tokens"] != row["tokens"]
            line += f", ours {ours['perplexity']:.6f}, relative difference {difference:.1e}"
        print(line, flush=True)
    (ROOT / "Tests/Golden/perplexity.json").write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
