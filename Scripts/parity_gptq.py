#!/usr/bin/env python3
"""Compares `pare quantize --method gptq` with GPTQ written independently in PyTorch.

    python3 Scripts/parity_gptq.py --pare .build/release/pare --model FOLDER --text train.txt \
        --valid valid.txt [--bits 4] [--group-size 64]

Both see the same token ids (rows of `--length` tokens) and quantize block by block, stage by stage, each
stage on inputs that the quantized ones before give. The peer works in float64 and by the paper's own
steps (Frantar et al. 2022, algorithm 1: Cholesky of the damped inverse), on compressed-tensors' grid.
Both results are measured by `pare eval perplexity`; ours should not be 0.5 % worse (at
2 bits rounding errors of the arithmetic decide codes, and either may come out ahead). Needs torch,
transformers, tokenizers.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def grid(w: torch.Tensor, bits: int, dtype: torch.dtype) -> torch.Tensor:
    """compressed-tensors' symmetric scale of each row: max|w| over half of the code range."""
    scale = w.abs().amax(1, keepdim=True) / ((2 ** bits - 1) / 2)
    scale = scale.to(dtype).to(w.dtype)
    return torch.where(scale == 0, torch.full_like(scale, torch.finfo(dtype).eps), scale)


def gptq(w: torch.Tensor, h: torch.Tensor, bits: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    w, h = w.double().clone(), h.double().clone()
    dead = h.diagonal() == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    h += 0.01 * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)
    upper = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    result = torch.zeros_like(w)
    scale = None
    for column in range(w.shape[1]):
        if column % group == 0:
            scale = grid(w[:, column:column + group], bits, dtype)[:, 0]
        q = torch.clamp(w[:, column] / scale, low, high).round() * scale
        error = (w[:, column] - q) / upper[column, column]
        w[:, column + 1:] -= error[:, None] * upper[column, column + 1:][None]
        result[:, column] = q
    return result


def inputs_of(layer, modules, states, **arguments):
    """Second moment of what reaches the first of the modules, over all samples."""
    moment = 0

    def hook(_, args):
        nonlocal moment
        x = args[0].reshape(-1, args[0].shape[-1]).double()
        moment = moment + x.T @ x

    handle = modules[0].register_forward_pre_hook(hook)
    for state in states:
        layer(state, **arguments)
    handle.remove()
    return moment


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--valid", required=True)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    text = pathlib.Path(options.text).read_text()[:4 * options.samples * options.length * 2]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = [ids[i * options.length:(i + 1) * options.length] for i in range(options.samples)]
    assert len(rows[-1]) == options.length, "more text is needed"
    stored = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto")
    dtype = next(stored.parameters()).dtype
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    states = [model.model.embed_tokens(torch.tensor([row])) for row in rows]
    positions = torch.arange(options.length)[None]
    rotary = model.model.rotary_emb(states[0], positions)
    mask = torch.full((options.length, options.length), float("-inf")).triu(1)[None, None]
    arguments = dict(position_embeddings=rotary, attention_mask=mask, position_ids=positions)
    for layer in model.model.layers:
        a, m = layer.self_attn, layer.mlp
        for modules in [[a.q_proj, a.k_proj, a.v_proj], [a.o_proj], [m.gate_proj, m.up_proj],
                        [m.down_proj]]:
            h = inputs_of(layer, modules, states, **arguments)
            for module in modules:
                module.weight.copy_(
                    gptq(module.weight, h, options.bits, options.group_size, dtype).float())
        states = [layer(s, **arguments) for s in states]
        states = [s[0] if isinstance(s, tuple) else s for s in states]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/peer")
        tokenizer.save_pretrained(f"{folder}/peer")
        pathlib.Path(f"{folder}/ids.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
        common = ["--bits", str(options.bits), "--group-size", str(options.group_size), "-o"]
        calibration = ["--calibration", f"{folder}/ids.jsonl", "--calibration-token-ids", "--samples",
                       str(options.samples), "--length", str(options.length)]
        for method, more in [("gptq", calibration), ("rtn", [])]:
            subprocess.run([options.pare, "quantize", options.model, "--method", method, *common,
                            f"{folder}/{method}", *more], check=True, capture_output=True)
        result = {}
        for name in ["peer", "gptq", "rtn"]:
            report = json.loads(subprocess.run(
                [options.pare, "eval", "perplexity", f"{folder}/{name}", "--file", options.valid,
                 "--json"], check=True, capture_output=True).stdout)
            result[name] = report["perplexity"]
    result["ours over the peer's"] = result["gptq"] / result["peer"] - 1
    print(json.dumps(result, indent=1))
    assert result["ours over the peer's"] < 0.005, "more than 0.5 % worse"


if __name__ == "__main__":
    main()
