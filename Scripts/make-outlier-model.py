#!/usr/bin/env python3
"""Gives a Llama's activations outlier channels without changing what it computes.

    python3 Scripts/make-outlier-model.py MODEL OUT [--channels 3] [--factor 100]

Some channels of every norm's weight are multiplied by the factor, and the columns of the matrices behind it
divided by it, in float32. Rounding tokens to 8 bits then loses what the other channels say. Needs torch,
safetensors.
"""
import argparse
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--factor", type=float, default=100)
    options = parser.parse_args()
    tensors = {k: v.float() for k, v in load_file(options.model / "model.safetensors").items()}
    draw = torch.Generator().manual_seed(0)
    for name in [n for n in tensors if n.endswith("layernorm.weight")]:
        layer = name.rsplit(".", 2)[0]
        behind = (["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
                  if "input_layernorm" in name else ["mlp.gate_proj", "mlp.up_proj"])
        channels = torch.randperm(len(tensors[name]), generator=draw)[:options.channels]
        tensors[name][channels] *= options.factor
        for module in behind:
            tensors[f"{layer}.{module}.weight"][:, channels] /= options.factor
    shutil.copytree(options.model, options.out, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(tensors, options.out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
