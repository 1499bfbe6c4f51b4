#!/usr/bin/env python3
"""Whether llama.cpp opens what `pare convert --to gguf` writes and computes the same, and the other
way round.

    python Scripts/parity_gguf.py --pare .build/release/pare [--model DIR ...] [--text FILE]

First the golden checkpoints of every family, as F32 files: logits agree within 0.003 of their spread.
Then for each model and type: the file that pare writes is loaded by llama-cpp-python; greedy
continuations and the log-probability of every token of a text are compared with those of pare on
the same file, and the text's token ids. Then llama.cpp's own quantizer makes files of the F32 one;
pare must choose the same type for each tensor, load them, and agree on the log-probabilities.
llama.cpp rounds activations to 8 bits where weights are packed; the mean difference of the
log-probabilities must stay below 0.02 at Q8_0 and above, and is printed for the others. (Q2_K_S it
makes only with an importance matrix.) Ends with 1 where a comparison fails. Checked with llama-cpp-python 0.3.36.
"""
import argparse
import ctypes
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
TYPES = ["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m",
         "q4_k_s", "q4_1", "q4_0", "iq4_nl", "iq4_xs", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k",
         "q2_k_s", "tq1_0", "tq2_0"]
FILE_TYPES = {
    "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11,
    "q3_k_m": 12, "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17,
    "q6_k": 18, "iq4_nl": 25, "iq4_xs": 30, "bf16": 32, "tq1_0": 36, "tq2_0": 37}
EXACT = ["f32", "f16", "bf16", "q8_0"]
GREEDY = 24


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def silent(level, text, data):
    pass


def pare(options, *arguments) -> str:
    return subprocess.run([options.pare, *map(str, arguments)], check=True,
                          capture_output=True, text=True).stdout


def pare_logits(options, model, ids, folder) -> np.ndarray:
    from safetensors.numpy import load_file
    out = f"{folder}/logits.safetensors"
    pare(options, "logits", model, "--tokens", ",".join(map(str, ids)), "-o", out, "--overwrite")
    return load_file(out)["logits"]


def log_probabilities(logits, ids) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits[np.arange(len(ids) - 1), ids[1:]]


def compare(options, file, text, folder) -> dict:
    """Both engines on one file."""
    llama = llama_cpp.Llama(file, logits_all=True, n_ctx=256, verbose=False, n_threads=2,
                            n_threads_batch=2)
    theirs_ids = llama.tokenize(text.encode(), add_bos=True, special=True)
    ours_ids = json.loads(pare(options, "tokenize", file, "--text", text, "--json"))["ids"]
    ids = ours_ids[:200]
    llama.eval(ids)
    theirs = np.array(llama.scores[:len(ids)])
    ours = pare_logits(options, file, ids, folder)
    delta = np.abs(log_probabilities(theirs, ids) - log_probabilities(ours, ids))
    llama.reset()
    prompt = ids[:8]
    greedy = []
    llama.eval(prompt)
    for _ in range(GREEDY):
        greedy.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(greedy[-1:])
    all_ids = prompt + greedy
    mine = pare_logits(options, file, all_ids, folder)
    rows = mine[len(prompt) - 1:-1]
    # Where our greedy choice is another, both are the same wherever our logits are not a near tie.
    same = sum(int(np.argmax(row)) == token for row, token in zip(rows, greedy))
    return {"ids": theirs_ids == ours_ids, "delta": float(delta.mean()), "greedy": same}


def quantize(source, target, kind) -> None:
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[kind]
    parameters.nthread = 2
    parameters.pure = False
    result = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(parameters))
    if result != 0:
        raise RuntimeError(f"llama_model_quantize failed for {kind}")


def types(options, file) -> dict:
    tensors = json.loads(pare(options, "inspect", file, "--tensors", "--json"))["tensors"]
    return {tensor["name"]: tensor["dtype"] for tensor in tensors}


def same_types(ours, theirs) -> bool:
    """Where rows are no whole blocks of Q2_K or Q3_K, llama.cpp takes Q4_0 and pare IQ4_NL, which is
    as large and nearer to the weights."""
    pairs = {(ours[name], theirs[name]) for name in theirs}
    return len(ours) == len(theirs) and all(a == b or (a, b) == ("IQ4_NL", "Q4_0") for a, b in pairs)


# What llama.cpp does not compute as these goldens do is switched off in their configs.
VARIANTS = {
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3": {"query_pre_attn_scalar": 20, "layer_types": ["sliding_attention"] * 3},
    "mistral": {"sliding_window": None}, "phi3": {"sliding_window": None},
    "qwen2-window": {"use_sliding_window": False, "layer_types": ["full_attention"] * 3},
    "qwen3": {"attention_bias": False},
}
IDS = [1, 5, 60, 33, 8, 2, 17, 40, 3, 3, 59, 12, 27, 44, 6, 31, 9, 22, 50, 14]


def llama_logits(file, ids, vocabulary) -> np.ndarray:
    """Logits of a file without a tokenizer, keys and values in float32."""
    model = llama_cpp.llama_model_load_from_file(
        file.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError("llama.cpp does not load the file")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = 64
    parameters.type_k = parameters.type_v = parameters.flash_attn_type = 0
    context = llama_cpp.llama_init_from_model(model, parameters)
    batch = llama_cpp.llama_batch_init(64, 0, 1)
    batch.n_tokens = len(ids)
    for index, token in enumerate(ids):
        batch.token[index], batch.pos[index], batch.logits[index] = token, index, 1
        batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
    if llama_cpp.llama_decode(context, batch) != 0:
        raise RuntimeError("llama.cpp does not run the file")
    pointer = llama_cpp.llama_get_logits(context)
    logits = np.ctypeslib.as_array(pointer, shape=(len(ids) * vocabulary,)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits.reshape(len(ids), vocabulary)


def architectures(options) -> bool:
    """The golden checkpoints of every family as F32 files, in both engines."""
    failed = False
    for golden in sorted((ROOT / "Tests/Golden/architectures").iterdir()):
        with tempfile.TemporaryDirectory() as folder:
            model, file = pathlib.Path(folder) / "model", f"{folder}/model.gguf"
            shutil.copytree(golden, model)
            config = json.loads((model / "config.json").read_text())
            config.update(VARIANTS.get(golden.name, {}))
            (model / "config.json").write_text(json.dumps(config))
            if golden.name == "qwen3":
                import safetensors.torch as st
                tensors = st.load_file(model / "model.safetensors")
                st.save_file({k: v for k, v in tensors.items() if not k.endswith("proj.bias")},
                             model / "model.safetensors")
            result = subprocess.run(
                [options.pare, "convert", model, "--to", "gguf", "--type", "f32", "-o", file],
                capture_output=True, text=True)
            if result.returncode != 0:
                print(f"{golden.name:25} refused: {result.stderr.split('GGUF: ')[-1].strip()}")
                continue
            ours = pare_logits(options, file, IDS, folder)
            theirs = llama_logits(file, IDS, ours.shape[1])
            worst = float(np.abs(ours - theirs).max() / ours.std())
            # ggml's gelu goes through a float16 table.
            bad = not worst < 3e-3
            failed |= bad
            print(f"{golden.name:25} {worst:.1e}{'  FAILED' if bad else ''}", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", required=True)
    parser.add_argument("--model", action="append")
    parser.add_argument("--text", default=ROOT / "Sources/Recipes/Resources/held-out.txt")
    options = parser.parse_args()
    models = options.model or [ROOT / "Sources/Recipes/Resources/stories"]
    text = pathlib.Path(options.text).read_text()[:600]
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    failed = architectures(options)
    for model in models:
        print(f"{model}\n{'type':8} {'ids':>5} {'|dlogp|':>9} {'greedy':>7}   "
              f"{'theirs: types':>13} {'|dlogp|':>9} {'greedy':>7}")
        with tempfile.TemporaryDirectory() as folder:
            full = f"{folder}/full.gguf"
            pare(options, "convert", model, "--to", "gguf", "--type", "f32", "-o", full)
            for kind in TYPES:
                ours, theirs = f"{folder}/ours.gguf", f"{folder}/theirs.gguf"
                pare(options, "convert", model, "--to", "gguf", "--type", kind, "-o", ours,
                     "--overwrite")
                a = compare(options, ours, text, folder)
                line = (f"{kind:8} {str(a['ids']):>5} {a['delta']:9.5f} "
                        f"{a['greedy']:3}/{GREEDY}   ")
                bad = not a["ids"]
                bad |= kind in EXACT and (a["delta"] >= 0.02 or a["greedy"] < GREEDY)
                if kind in FILE_TYPES:
                    quantize(full, theirs, kind)
                    same = same_types(types(options, ours), types(options, theirs))
                    b = compare(options, theirs, text, folder)
                    line += f"{str(same):>13} {b['delta']:9.5f} {b['greedy']:3}/{GREEDY}"
                    bad |= not same or (kind in EXACT and b["delta"] >= 0.02)
                print(line + ("  FAILED" if bad else ""), flush=True)
                failed |= bad
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
