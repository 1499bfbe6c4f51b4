#!/usr/bin/env python3
"""A training step of Pare beside PyTorch's, eager and compiled, on the same model, batch and precision.

    python Benchmarks/training.py --pare .build/release/pare [--rounds 5] [--models 15m 1m] [--compile]

Runs take turns, so that whatever else the machine does falls on both alike; medians of the ratios of
neighbouring runs are reported with their spread. PyTorch runs in processes of its own with as many
threads. Needs torch and transformers.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

# tokenizers.py beside this file is not the package of that name.
sys.path = [path for path in sys.path if pathlib.Path(path).resolve() != pathlib.Path(__file__).resolve().parent]

SHAPES = {
    "15m": dict(vocab_size=32000, hidden_size=288, intermediate_size=768, num_hidden_layers=6,
                num_attention_heads=6, num_key_value_heads=6),
    "teacher": dict(vocab_size=32000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8,
                    num_attention_heads=8, num_key_value_heads=8),
    "1m": dict(vocab_size=512, hidden_size=128, intermediate_size=352, num_hidden_layers=5,
               num_attention_heads=4, num_key_value_heads=4),
}

TORCH = r"""
import json, resource, sys, time
import torch, torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM
shape, batch, length, steps, threads, compiled, teacher_shape = json.loads(sys.argv[1])
torch.set_num_threads(threads)
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=length, tie_word_embeddings=True, **shape))
run = torch.compile(model) if compiled else model
teacher = None
if teacher_shape:
    teacher = LlamaForCausalLM(
        LlamaConfig(max_position_embeddings=length, tie_word_embeddings=True, **teacher_shape)).eval()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
ids = torch.randint(0, shape["vocab_size"], (batch, length + 1))
times = []
for step in range(steps + 2):
    start = time.perf_counter()
    logits = run(ids[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    if teacher:
        with torch.no_grad():
            target = F.log_softmax(teacher(ids[:, :-1]).logits.flatten(0, 1) / 2, -1)
        soft = F.kl_div(F.log_softmax(logits.flatten(0, 1) / 2, -1), target, log_target=True, reduction="batchmean")
        loss = 0.5 * loss + 0.5 * 4 * soft
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if step >= 2: times.append(time.perf_counter() - start)
times.sort()
print(json.dumps({"tokens_per_second": batch * length / times[len(times) // 2],
    "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def torch_run(shape, options, compiled, teacher=None):
    argument = json.dumps(
        [shape, options.batch, options.length, options.steps, options.threads, compiled, teacher])
    out = subprocess.run([sys.executable, "-c", TORCH, argument], check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def pare_run(folder, options, teacher=None):
    """A training, or with a teacher's folder a distillation of soft targets at temperature 2."""
    model = [folder / "config.json", "--tokenizer", folder]
    command = ["train", *model] if not teacher else [
        "distill", "--teacher", teacher, "--student", folder / "student", "--method", "soft", "--temperature", "2"]
    if teacher and not (folder / "student").exists():
        new_model(options, folder, folder / "student")
    out = subprocess.run(
        [options.pare, *command, "--data", folder / "text.txt",
         "--packing", "windows", "--steps", str(options.steps + 2), "--batch-size", str(options.batch),
         "--length", str(options.length), "--schedule", "constant", "--learning-rate", "1e-4",
         "--threads", str(options.threads), "--overwrite", "--json", "-o", folder / "out", "--keep-checkpoints"],
        check=True, capture_output=True, text=True)
    report = json.loads(out.stdout)
    lines = [json.loads(line) for line in (folder / "out.training" / "metrics.jsonl").read_text().splitlines()]
    report["tokens_per_second"] = statistics.median(
        options.batch * options.length / (line["tokens"] / (step + 1) / line["tokens_per_second"])
        for step, line in enumerate(lines) if step >= 2)
    return report


def new_model(options, folder, output):
    """Random numbers of a config's shape: one step at no learning rate."""
    subprocess.run(
        [options.pare, "train", folder / "config.json", "--tokenizer", folder, "--data", folder / "text.txt",
         "--steps", "1", "--batch-size", "1", "--length", "16", "--learning-rate", "1e-12", "--optimizer", "sgd",
         "-o", output], check=True, capture_output=True)


def folder_for(name, shape, length, root):
    """A config, a byte-level tokenizer and some text; what the tokens are does not matter for speed."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig
    folder = pathlib.Path(root) / name
    folder.mkdir()
    LlamaConfig(max_position_embeddings=length, tie_word_embeddings=True, **shape).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(architectures=["LlamaForCausalLM"], bos_token_id=None, eos_token_id=None)
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "text.txt").write_text("".join(chr(97 + i * i % 26) for i in range(200_000)))
    return folder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pare", required=True)
    parser.add_argument("--models", nargs="+", default=["15m", "1m"], choices=SHAPES)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--distill", action="store_true", help="also the 15M model under a teacher of 512 x 8")
    parser.add_argument("--json", help="also write the results here")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as root:
        cases = [(name, compiled, None) for name in options.models
                 for compiled in [False] + ([True] if options.compile else [])]
        folders = {name: folder_for(name, SHAPES[name], options.length, root) for name in options.models}
        if options.distill:
            source = folder_for("teacher", SHAPES["teacher"], options.length, root)
            new_model(options, source, source / "model")
            folders.setdefault("15m", None)
            folders["15m"] = folders["15m"] or folder_for("15m", SHAPES["15m"], options.length, root)
            cases.append(("15m", False, source / "model"))
        for name, compiled, teacher in cases:
            folder = folders[name]
            pairs = []
            for _ in range(options.rounds):
                pairs.append((
                    pare_run(folder, options, teacher),
                    torch_run(SHAPES[name], options, compiled, SHAPES["teacher"] if teacher else None)))
            ratios = sorted(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs)
            results.append({
                "model": name + (" distilled" if teacher else ""), "peer": "torch.compile" if compiled else "eager",
                "ratio": statistics.median(ratios), "least": ratios[0], "most": ratios[-1],
                "tokens_per_second": statistics.median(a["tokens_per_second"] for a, _ in pairs),
                "peer_tokens_per_second": statistics.median(b["tokens_per_second"] for _, b in pairs),
                "peak_resident_bytes": max(a["peak_resident_bytes"] for a, _ in pairs),
                "peer_peak_resident_bytes": min(b["peak_resident_bytes"] for _, b in pairs)})
            r = results[-1]
            print(f"{r['model']:>13} beside {r['peer']:<13} {r['ratio']:.2f} ({r['least']:.2f} to "
                  f"{r['most']:.2f})  {r['tokens_per_second']:.0f} to {r['peer_tokens_per_second']:.0f} "
                  f"tokens/s  {r['peak_resident_bytes'] / 1e6:.0f} to "
                  f"{r['peer_peak_resident_bytes'] / 1e6:.0f} MB", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
