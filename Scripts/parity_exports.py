#!/usr/bin/env python3
"""Whether other programs open what `pare convert` makes of a quantized model, and compute the same.

    python Scripts/parity_exports.py --pare .build/release/pare [--model DIR] [--only mlx ...]

A model is quantized by pare to 4 and 8 bits, symmetric and not, and carried to compressed-tensors,
GPTQ (both versions), AWQ, MLX and GGUF. Each result is compared with `pare logits` of itself:

* numpy: each layout is decoded by a few lines written from its description, and transformers runs
  the decoded model in float32 (needs torch, transformers);
* transformers opens compressed-tensors itself (needs compressed-tensors);
* GPTQModel opens GPTQ and AWQ on the processor (needs gptqmodel);
* mlx_lm opens MLX, and pare opens what `mlx_lm.convert` quantizes (needs mlx-lm);
* the gguf package decodes GGUF's blocks (needs gguf).

What is not installed is named and left out, so the script is run once in each environment. Largest
difference over largest logit: below 1e-4 where both sides compute in float32, below 0.08 where the
other side computes in 16 bits. Ends with 1 where a comparison fails.
"""
import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
IDS = [1, 40, 271, 33, 8, 2, 17, 90, 5, 61, 12, 300, 44, 7]
failures = []


def has(module) -> bool:
    return importlib.util.find_spec(module) is not None


def pare(options, *arguments):
    done = subprocess.run([options.pare, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pare {' '.join(map(str, arguments))}\n{done.stderr}")


def pare_logits(options, model, folder) -> np.ndarray:
    from safetensors.numpy import load_file
    out = f"{folder}/logits.safetensors"
    pare(options, "logits", model, "--tokens", ",".join(map(str, IDS)), "-o", out, "--overwrite")
    return load_file(out)["logits"]


def compare(name, ours, theirs, tolerance):
    gap = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    verdict = "same" if gap <= tolerance else "DIFFERENT"
    if gap > tolerance:
        failures.append(name)
    print(f"{name:58} {gap:.1e} {verdict}", flush=True)


# Layouts decoded from their descriptions.

def fields(words, bits) -> np.ndarray:
    """A stream of bits along the last axis of 32-bit words, as codes."""
    raw = np.ascontiguousarray(words).view(np.uint8)
    stream = np.unpackbits(raw, axis=-1, bitorder="little")
    count = stream.shape[-1] // bits
    stream = stream[..., :count * bits].reshape(*stream.shape[:-1], count, bits)
    return (stream.astype(np.int64) << np.arange(bits)).sum(-1)


def gptq(parts, bits, version) -> np.ndarray:
    codes = fields(parts["qweight"].T, bits).T
    zeros = fields(parts["qzeros"], bits)
    if version == 1:
        zeros = (zeros + 1) % 2**bits
    group = parts["g_idx"]
    return ((codes - zeros[group]) * parts["scales"].astype(np.float64)[group]).T


def awq(parts, group) -> np.ndarray:
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    def nibbles(words):
        return (words.view(np.uint32)[..., None] >> (4 * order) & 15).reshape(len(words), -1)
    codes, zeros = (nibbles(parts[name]).astype(np.int64) for name in ("qweight", "qzeros"))
    scales = parts["scales"].astype(np.float64)
    rows = np.arange(len(codes)) // group
    return ((codes - zeros[rows]) * scales[rows]).T


def mlx_affine(parts, bits, group) -> np.ndarray:
    codes = fields(parts["weight"], bits)
    columns = np.arange(codes.shape[1]) // group
    return (codes * parts["scales"].astype(np.float64)[:, columns]
            + parts["biases"].astype(np.float64)[:, columns])


def compressed(parts, bits) -> np.ndarray:
    out, columns = (int(size) for size in parts["weight_shape"])
    codes = fields(parts["weight_packed"], bits)[:, :columns]
    scales = parts["weight_scale"].astype(np.float64)
    zeros = np.full(scales.shape, 2**(bits - 1))
    if "weight_zero_point" in parts:
        zeros = fields(parts["weight_zero_point"].T, bits)[:, :out].T
    group = np.arange(columns) // (columns // scales.shape[1])
    return (codes - zeros[:, group]) * scales[:, group]


def load(folder) -> dict:
    """Tensors as numpy arrays, bfloat16 widened."""
    import torch
    from safetensors.torch import load_file
    tensors = {}
    for file in sorted(pathlib.Path(folder).glob("model*.safetensors")):
        for name, tensor in load_file(file).items():
            if tensor.dtype == torch.bfloat16:
                tensor = tensor.float()
            tensors[name] = tensor.numpy()
    return tensors


def dense_logits(folder) -> np.ndarray:
    """The model decoded here and run by transformers in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    mlx = config.get("quantization")
    quantization = mlx or config["quantization_config"]
    method = "mlx" if mlx else quantization["quant_method"]
    modules, state = {}, {}
    for name, tensor in load(folder).items():
        module, suffix = name.rsplit(".", 1)
        modules.setdefault(module, {})[suffix] = tensor
    for module, parts in modules.items():
        if "qweight" in parts and method == "gptq":
            version = 2 if quantization["checkpoint_format"] == "gptq_v2" else 1
            weight = gptq(parts, quantization["bits"], version)
        elif "qweight" in parts:
            weight = awq(parts, quantization["group_size"])
        elif "biases" in parts:
            weight = mlx_affine(parts, quantization["bits"], quantization["group_size"])
        elif "weight_packed" in parts:
            bits = quantization["config_groups"]["group_0"]["weights"]["num_bits"]
            weight = compressed(parts, bits)
        else:
            weight = parts["weight"]
        state[f"{module}.weight"] = torch.tensor(weight, dtype=torch.float32)
    for key in ("quantization", "quantization_config"):
        config.pop(key, None)
    with tempfile.TemporaryDirectory() as plain:
        (pathlib.Path(plain) / "config.json").write_text(json.dumps(config))
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(plain), dtype=torch.float32)
    missing = model.load_state_dict(state, strict=False)
    model.tie_weights()
    assert not missing.unexpected_keys, missing
    with torch.no_grad():
        return model.eval()(torch.tensor([IDS])).logits[0].numpy()


def transformers_logits(folder, asymmetric) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig
    extra = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if asymmetric else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **extra)
    with torch.no_grad():
        return model.eval()(torch.tensor([IDS])).logits[0].float().numpy()


def gptqmodel_logits(folder, target) -> np.ndarray:
    """With the kernels that open codes in torch: the others round activations too."""
    import torch
    from gptqmodel import BACKEND, GPTQModel
    backend = BACKEND.AWQ_TORCH if target == "awq" else BACKEND.GPTQ_TORCH
    model = GPTQModel.load(folder, device="cpu", backend=backend, dtype=torch.bfloat16)
    with torch.no_grad():
        inner = getattr(model, "model", model)
        return inner.eval()(torch.tensor([IDS])).logits[0].float().numpy()


def mlx_logits(folder) -> np.ndarray:
    import mlx.core as mx
    from mlx_lm.utils import load_model
    model = load_model(pathlib.Path(folder))[0]
    logits = model(mx.array([IDS]))[0].astype(mx.float32)
    mx.eval(logits)
    return np.array(logits)


def check_gguf(options, file, source):
    """Blocks as the gguf package decodes them beside the matrices they were made of."""
    from gguf import GGUFReader, dequantize
    quantization = json.loads(
        (pathlib.Path(source) / "config.json").read_text())["quantization_config"]
    bits = quantization["config_groups"]["group_0"]["weights"]["num_bits"]
    tensors = load(source)
    module = "model.layers.0.mlp.down_proj"
    parts = {name.rsplit(".", 1)[1]: tensor for name, tensor in tensors.items()
             if name.startswith(f"{module}.")}
    for tensor in GGUFReader(file).tensors:
        if tensor.name == "blk.0.ffn_down.weight":
            theirs = dequantize(tensor.data, tensor.tensor_type)
            compare(f"gguf {tensor.tensor_type.name} {pathlib.Path(source).name}",
                    compressed(parts, bits), theirs, 1e-3)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", default=str(ROOT / ".build/release/pare"))
    parser.add_argument("--model", default=str(ROOT / "Sources/Recipes/Resources/stories"))
    parser.add_argument("--only", nargs="*", help="numpy, transformers, gptqmodel, mlx, gguf")
    options = parser.parse_args()
    wanted = {
        "numpy": has("torch") and has("transformers"),
        "transformers": has("torch") and has("compressed_tensors"),
        "gptqmodel": has("gptqmodel"), "mlx": has("mlx_lm"),
        "gguf": has("gguf") and has("torch"),
    }
    for name, present in wanted.items():
        if options.only and name not in options.only:
            wanted[name] = False
        elif not present:
            print(f"{name}: left out, not installed")
    with tempfile.TemporaryDirectory() as folder:
        for bits, asymmetric in [(4, False), (4, True), (8, False), (3, False)]:
            grid = f"{bits}-{'asymmetric' if asymmetric else 'symmetric'}"
            source = f"{folder}/{grid}"
            pare(options, "quantize", options.model, "--bits", bits, "--group-size", 64,
                 *(["--asymmetric"] if asymmetric else []), "-o", source)
            targets = ["compressed-tensors", "gptq", "gptq-v2", "mlx"] + ["awq"] * (bits == 4)
            for target in targets:
                out = f"{folder}/{grid}-{target}"
                name = f"{target} {grid}"
                # A zero point of 0 cannot be said in version 1; such matrices are rounded anew.
                extra = ["--requantize"] if target == "gptq" and asymmetric else []
                exact = ["--dtype", "f32"] if target == "mlx" else []
                pare(options, "convert", source, "--to", target, "-o", out, *extra, *exact)
                ours = pare_logits(options, out, folder)
                if wanted["numpy"]:
                    compare(f"numpy {name}", ours, dense_logits(out), 1e-4)
                if wanted["transformers"] and target == "compressed-tensors":
                    # transformers opens packed zero points only by rounding weights to the type of
                    # the scales, here bfloat16.
                    compare(f"transformers {name}", ours, transformers_logits(out, asymmetric),
                            0.01 if asymmetric else 1e-4)
                # GPTQModel opens asymmetric models of version 1 only where it wrote them.
                opens = target in ("gptq-v2", "awq") or target == "gptq" and not asymmetric
                if wanted["gptqmodel"] and opens:
                    compare(f"gptqmodel {name}", ours, gptqmodel_logits(out, target), 0.08)
                if wanted["mlx"] and target == "mlx":
                    compare(f"mlx {name}", ours, mlx_logits(out), 1e-4)
                    pare(options, "convert", source, "--to", target, "-o", f"{out}-16")
                    compare(f"mlx {name}, 16 bits", pare_logits(options, f"{out}-16", folder),
                            mlx_logits(f"{out}-16"), 0.08)
            if wanted["gguf"]:
                file = f"{folder}/{grid}.gguf"
                pare(options, "convert", source, "--to", "gguf", "-o", file)
                check_gguf(options, file, source)
        if wanted["mlx"]:
            from mlx_lm import convert
            for bits, group in [(4, 64), (3, 32), (6, 64), (8, 128)]:
                out = f"{folder}/made-by-mlx-{bits}-{group}"
                convert(options.model, out, quantize=True, q_bits=bits, q_group_size=group,
                        dtype="float32")
                compare(f"pare opens mlx {bits} bits g{group}",
                        pare_logits(options, out, folder), mlx_logits(out), 1e-4)
    if failures:
        sys.exit(f"different: {', '.join(failures)}")


if __name__ == "__main__":
    main()
