#!/usr/bin/env python3
"""Every kind of distillation beside training on labels only, at an equal budget of tokens.

    python Benchmarks/distillation.py --pare .build/release/pare --teacher TEACHER --shape layers=3,hidden=64 \
        --train TRAIN.txt --valid VALID.txt --json out.json [--seeds 3] [--methods labels soft …] [--jobs 2]

Each student starts from the same random numbers (of its seed) and sees the same tokens; methods that learn
from the student's own samples take the first half of the budget to learn soft targets, as their papers start
from a trained student. Measured on held-out text: perplexity and KL to the teacher (`pare eval divergence`),
ROUGE-L of greedy continuations (`pare eval generation`). Also: a student cut from the teacher's layers, and
the scales of a 3-bit rounding, each with how much of the lost likelihood is won back. Needs nothing but Python.
"""
import argparse
import concurrent.futures
import json
import math
import pathlib
import statistics
import subprocess
import tempfile

ON_POLICY = {"gkd", "minillm", "distillm"}
METHODS = ["labels", "soft", "soft T2", "reverse_kl", "jeffreys", "jsd", "skew_kl", "total_variation", "taid",
           "hidden", "fitnets", "tinybert", "mobilebert", "distilbert", "minilm", "minilm-v2", "rkd-distance",
           "rkd-angle", "rkd-tokens", "uld", "ema", "exits", "born-again", "two teachers", "sequence", "gkd",
           "minillm", "distillm"]
DIVERGENCES = {"reverse_kl", "jeffreys", "jsd", "skew_kl", "total_variation"}


def run(arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}\n{done.stderr[-2000:]}")
    return done.stdout


class Bench:
    def __init__(self, options, folder):
        self.o, self.folder = options, pathlib.Path(folder)

    def pare(self, *arguments):
        return json.loads(run([self.o.pare, *arguments, "--json", "--threads", 1]))

    def common(self, seed, steps):
        o = self.o
        return ["--data", o.train, "--steps", steps, "--batch-size", o.batch, "--length", o.length, "--seed", seed,
                "--optimizer", o.optimizer, "--learning-rate", o.rate, "--warmup-steps", 10, "--max-new-tokens", o.new_tokens,
                "--prompt-tokens", o.prompt_tokens]

    def distill(self, out, seed, steps, student, *method):
        return self.pare("distill", "--teacher", self.o.teacher, *student, *self.common(seed, steps), *method,
                         "-o", out)["seconds"]

    def measure(self, model):
        o = self.o
        divergence = self.pare("eval", "divergence", model, "--baseline", o.teacher, "--file", self.text,
                               "--cache", self.cache)
        generation = json.loads(run([o.pare, "eval", "generation", model, "--prompts", self.prompts,
                                     "--prompt-tokens", o.prompt_tokens, "--max-tokens", o.rouge_tokens, "--limit",
                                     o.rouge_texts, "--batch-size", 32, "--json", "--threads", 1]))
        return {"perplexity": math.exp(divergence["nll"]), "nll": divergence["nll"], "kl": divergence["kl_mean"],
                "delta_nll": divergence["delta_nll"], "delta_nll_standard_error":
                divergence["delta_nll_standard_error"], "rouge_l": generation["rouge_l_f1"]}

    def prepare(self):
        self.text = self.folder / "valid.txt"
        text = pathlib.Path(self.o.valid).read_text(encoding="utf-8")
        self.text.write_text(text[:self.o.valid_bytes], encoding="utf-8")
        self.prompts = self.folder / "prompts.txt"
        stories = [s.strip() for s in text[self.o.valid_bytes:].split("\n\n") if len(s.strip()) > 400]
        self.prompts.write_text("<|endoftext|>".join(stories[:self.o.rouge_texts]), encoding="utf-8")
        self.cache = self.folder / "cache"
        self.cache.mkdir()
        self.measure(self.o.teacher)  # makes the cache of the teacher's logits

    def method(self, name, seed):
        o, out = self.o, self.folder / f"{name.replace(' ', '-')}-{seed}"
        student = ["--student-shape", o.shape]
        arguments = {
            "soft T2": ["--method", "soft", "--temperature", 2],
            "two teachers": ["--method", "soft", "--teacher", o.second_teacher or o.teacher, "--weighting", "entropy"],
            "ema": ["--method", "ema"], "born-again": ["--method", "born-again", "--generations", 2],
        }.get(name) or (["--method", "soft", "--divergence", name] if name in DIVERGENCES else ["--method", name])
        steps, seconds = o.steps, 0.0
        if name in ON_POLICY:
            seconds += self.distill(self.folder / f"{name}-{seed}-start", seed, steps // 2, student, "--method", "soft")
            student, steps = ["--student", self.folder / f"{name}-{seed}-start"], steps - steps // 2
            arguments = arguments + ["--prompts", o.batch]
        if name == "born-again":
            steps //= 2
        seconds += self.distill(out, seed, steps, student, *arguments)
        return {"method": name, "seed": seed, "seconds": seconds, **self.measure(out)}

    def recovery(self):
        """What is won back of a cut and of a 3-bit rounding, in nats per token, with the paired error."""
        o, results = self.o, []
        steps = o.recovery_steps
        cut = ["--student-shape", o.cut, "--from-teacher", "--layers", o.cut_layers]
        self.distill(self.folder / "cut", 0, 1, cut, "--method", "labels", "--learning-rate", 1e-9, "--optimizer", "adamw",
                     "--warmup-steps", 0)
        cases = [("cut", "cut, then labels only", self.folder / "cut", ["--method", "labels"], 1e-3),
                 ("cut", "cut, then soft targets", self.folder / "cut", ["--method", "soft"], 1e-3)]
        run([o.pare, "quantize", o.teacher, "--bits", 3, "--group-size", o.group, "-o", self.folder / "q3"])
        cases.append(("q3", "3 bits, then scales", self.folder / "q3",
                      ["--method", "soft", "--soft-weight", 1, "--train", "scales"], o.scale_rate))
        lost = {name: self.measure(self.folder / name) for name in ("cut", "q3")}
        for base, title, student, method, rate in cases:
            out = self.folder / f"recovered-{len(results)}"
            seconds = self.pare("distill", "--teacher", o.teacher, "--student", student, *method, "--data", o.train,
                                "--steps", steps, "--batch-size", 8, "--length", o.length, "--learning-rate",
                                rate, "--warmup-steps", 10, "-o", out)["seconds"]
            after = self.measure(out)
            results.append({
                "case": title, "lost": lost[base]["delta_nll"], "left": after["delta_nll"],
                "left_standard_error": after["delta_nll_standard_error"],
                "won_back": 1 - after["delta_nll"] / lost[base]["delta_nll"], "kl_before": lost[base]["kl"],
                "kl": after["kl"], "seconds": seconds})
            print(json.dumps(results[-1]), flush=True)
        return results


def main():
    parser = argparse.ArgumentParser()
    for name in ("--pare", "--teacher", "--shape", "--train", "--valid", "--json"):
        parser.add_argument(name, required=True)
    parser.add_argument("--second-teacher")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--rate", type=float, default=2e-2)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--valid-bytes", type=int, default=24_000)
    parser.add_argument("--rouge-texts", type=int, default=64)
    parser.add_argument("--rouge-tokens", type=int, default=128)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--recovery", action="store_true")
    parser.add_argument("--recovery-steps", type=int, default=300)
    parser.add_argument("--cut", default="layers=3")
    parser.add_argument("--cut-layers", default="importance")
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--scale-rate", type=float, default=1e-3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, folder)
        bench.prepare()
        rows = []
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            tasks = [pool.submit(bench.method, m, s) for m in options.methods for s in range(options.seeds)]
            for task in concurrent.futures.as_completed(tasks):
                rows.append(task.result())
                print(json.dumps(rows[-1]), flush=True)
        table = []
        for method in options.methods:
            mine = [r for r in rows if r["method"] == method]
            if not mine:
                continue
            summary = {"method": method, "seeds": len(mine)}
            for key in ("perplexity", "nll", "kl", "rouge_l", "seconds"):
                values = [r[key] for r in mine]
                summary[key] = (statistics.median if key == "seconds" else statistics.mean)(values)
                summary[f"{key}_deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
            table.append(summary)
        result = {"teacher": pathlib.Path(options.teacher).name, "shape": options.shape,
                  "tokens": options.steps * options.batch * options.length, "table": table, "runs": rows,
                  "recovery": bench.recovery() if options.recovery else []}
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
