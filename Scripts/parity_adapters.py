#!/usr/bin/env python3
"""Whether PEFT loads an adapter that Pare wrote and computes what Pare computes with it.

    python Scripts/parity_adapters.py --model BASE --adapter DIR [--merged DIR] [--pare .build/release/pare]

Loads the base and the adapter with transformers and PEFT, and compares float32 logits with those of
PEFT's own merge and, if given, with the merged checkpoint that Pare wrote, read by transformers and by
`pare logits`. Prints the largest difference over the logits' standard deviation; ends with 1 if one
exceeds 2e-4 (2e-2 for a merge that was rounded to a narrower type). Checked with torch 2.15.0,
transformers 5.24.0, peft 0.21.2.
"""
import argparse
import subprocess
import sys
import tempfile

import peft
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def load(path: str):
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager").eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--merged")
    parser.add_argument("--pare")
    options = parser.parse_args()
    torch.manual_seed(0)
    base = load(options.model)
    tokens = torch.randint(0, base.config.vocab_size, (1, 32))
    with torch.no_grad():
        plain = base(tokens).logits[0]
        adapted = peft.PeftModel.from_pretrained(base, options.adapter)
        expected = adapted(tokens).logits[0]
        results = {"merged by PEFT": (adapted.merge_and_unload()(tokens).logits[0], 2e-4)}
        if options.merged:
            merged = AutoModelForCausalLM.from_pretrained(options.merged)
            limit = 2e-4 if merged.dtype == torch.float32 else 2e-2
            results["merged by Pare"] = (load(options.merged)(tokens).logits[0], limit)
            if options.pare:
                with tempfile.TemporaryDirectory() as folder:
                    ids = ",".join(map(str, tokens[0].tolist()))
                    subprocess.run(
                        [options.pare, "logits", options.merged, "--tokens", ids,
                         "-o", f"{folder}/logits"], check=True)
                    ours = load_file(f"{folder}/logits")["logits"]
                    results["pare logits"] = (ours, limit)
    spread = expected.std().item()
    print(f"the adapter moves logits by {(plain - expected).abs().max().item() / spread:.3g}")
    failed = False
    for name, (logits, limit) in results.items():
        gap = (logits - expected).abs().max().item() / spread
        failed |= not gap <= limit
        print(f"{name}: {gap:.2e}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
