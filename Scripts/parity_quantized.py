#!/usr/bin/env python3
"""Whether transformers opens what `pare quantize` writes and computes the same.

    python Scripts/parity_quantized.py --pare .build/release/pare [--model DIR]

Quantizes the model in every layout that compressed-tensors can open, loads each result with
transformers (the compressed-tensors package decompresses it) and compares float32 logits with those
of `pare logits`, which multiplies from the packed weights. Prints the largest difference over the
logits' standard deviation; ends with 1 if one exceeds 2e-4. Checked with torch 2.15.0,
transformers 5.24.0, compressed-tensors 0.20.0.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = [
    ["--bits", "4", "--group-size", "64"],
    ["--bits", "4", "--group-size", "32", "--asymmetric"],
    ["--bits", "8", "--group-size", "128"],
    ["--bits", "8", "--strategy", "channel"],
    ["--bits", "8", "--strategy", "channel", "--format", "int-quantized"],
    ["--bits", "8", "--strategy", "channel", "--format", "int-quantized", "--asymmetric"],
    ["--bits", "8", "--strategy", "tensor", "--format", "int-quantized"],
    ["--bits", "2", "--group-size", "16", "--asymmetric"],
    ["--bits", "3", "--group-size", "64"],
    ["--bits", "3", "--group-size", "64", "--asymmetric"],
    ["--bits", "5", "--group-size", "64"],
    ["--bits", "6", "--group-size", "64"],
    ["--bits", "4", "--group-size", "64", "--targets", "mlp.*", "--blocks", "1-2"],
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", required=True)
    parser.add_argument("--model", default=ROOT / "Sources/Recipes/Resources/stories")
    options = parser.parse_args()
    torch.manual_seed(0)
    failed = False
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            out, source = f"{folder}/out", options.model
            is_asymmetric = "--asymmetric" in case
            if is_asymmetric:
                source = f"{folder}/float32"
                AutoModelForCausalLM.from_pretrained(
                    options.model, dtype=torch.float32).save_pretrained(source)
            subprocess.run([options.pare, "quantize", source, "-o", out, *case], check=True,
                           capture_output=True)
            try:
                # Without `dequantize`, transformers 5.24 expects packed zero points in the shape of
                # unpacked ones and refuses its own files too. With it, weights are rounded to the
                # scales' type, so that only float32 scales compare exactly.
                how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} \
                    if is_asymmetric else {}
                model = AutoModelForCausalLM.from_pretrained(
                    out, dtype=torch.float32, **how).eval()
            except Exception as error:  # the point is to see what it says
                print(f"{' '.join(case)}: transformers refuses: {str(error)[:150]}")
                failed = True
                continue
            tokens = torch.randint(0, model.config.vocab_size, (40,))
            subprocess.run([options.pare, "logits", out, "--tokens",
                            ",".join(map(str, tokens.tolist())), "-o", f"{folder}/logits"],
                           check=True)
            ours = load_file(f"{folder}/logits")["logits"]
            with torch.inference_mode():
                theirs = model(tokens[None]).logits[0].float()
            error = ((ours - theirs).abs().max() / theirs.std()).item()
            same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
            failed |= error > 2e-4
            print(f"{' '.join(case)}: {error:.1e} of the spread, same top {same:.0%}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
