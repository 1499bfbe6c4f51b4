#!/usr/bin/env python3
"""Whether FP8, NVFP4 and MXFP4 folders hold compressed-tensors' bytes and mean the same to it.

    python Scripts/parity_float_codecs.py --pare .build/release/pare [--source DIR] FOLDER ...

Each folder is a model written from `--source` in `float-quantized`, `nvfp4-pack-quantized` or
`mxfp4-pack-quantized` with the scales that just cover each group. Two comparisons:

* bytes: every quantized matrix of the source, in float32, goes through the package's own scale rule and
  compressor; all components must be equal byte for byte;
* logits: transformers opens the folder on the CPU (the package decompresses it) and computes float32
  logits; `pare logits` computes them from the codes. The largest difference over the logits' standard
  deviation must stay below 2e-4, or 2e-2 where the package decompresses into bfloat16.

Ends with 1 if a comparison fails. Without `--pare` only bytes are compared. Checked with torch
2.15.0, transformers 5.24.0, compressed-tensors 0.20.0.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Scripts/fixtures"))
from float_groups import compress  # noqa: E402

KINDS = {"float-quantized": "float8", "nvfp4-pack-quantized": "nvfp4",
         "mxfp4-pack-quantized": "mxfp4"}


def tensors_of(folder: pathlib.Path) -> dict:
    result = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            result.update({name: file.get_tensor(name) for name in file.keys()})
    return result


def compare_bytes(folder: pathlib.Path, source: dict) -> bool:
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    group = config["config_groups"]["group_0"]
    kind, weights = KINDS[group["format"]], group["weights"]
    granularity = f"group{weights['group_size']}" if weights["group_size"] else weights["strategy"]
    ours = tensors_of(folder)
    modules = sorted(name.removesuffix(".weight_scale") for name in ours
                     if name.endswith(".weight_scale"))
    equal = total = 0
    for module in modules:
        scale_type = ours[f"{module}.weight_scale"].dtype
        expected = compress(kind, granularity, source[f"{module}.weight"].float(), scale_type)
        expected.pop("decoded")
        for key, value in expected.items():
            mine = ours[f"{module}.{key}"]
            total += 1
            equal += mine.dtype == value.dtype and mine.shape == value.shape and torch.equal(
                mine.contiguous().view(torch.uint8), value.contiguous().view(torch.uint8))
    print(f"{folder.name}: {len(modules)} matrices, {equal} of {total} components equal")
    return equal == total and total > 0


def compare_logits(pare: str, folder: pathlib.Path) -> bool:
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig
    limit = 2e-4
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    # Run from compressed weights, FP4 matrices come out in bfloat16, which float32 inputs do not fit.
    how = {} if config["format"] == "float-quantized" else {
        "quantization_config": CompressedTensorsConfig(dequantize=True)}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how).eval()
    except Exception as error:  # the point is to see what it says
        print(f"{folder.name}: transformers refuses: {str(error)[:200]}")
        return False
    if config["format"] == "nvfp4-pack-quantized":
        limit = 2e-2
    tokens = torch.randint(3, model.config.vocab_size, (40,))
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([pare, "logits", folder, "--tokens", ",".join(map(str, tokens.tolist())),
                        "-o", f"{out}/logits"], check=True)
        ours = load_file(f"{out}/logits")["logits"]
    with torch.inference_mode():
        theirs = model(tokens[None]).logits[0].float()
    error = ((ours - theirs).abs().max() / theirs.std()).item()
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    print(f"{folder.name}: logits differ by {error:.1e} of the spread, same top {same:.0%}")
    return error < limit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--pare")
    parser.add_argument("--source", type=pathlib.Path,
                        default=ROOT / "Sources/Recipes/Resources/stories")
    options = parser.parse_args()
    torch.manual_seed(0)
    source = tensors_of(options.source)
    failed = False
    for folder in options.folders:
        failed |= not compare_bytes(folder, source)
        if options.pare:
            failed |= not compare_logits(options.pare, folder)
    sys.exit(failed)


if __name__ == "__main__":
    main()
