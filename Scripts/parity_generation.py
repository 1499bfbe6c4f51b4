#!/usr/bin/env python3
"""Compares `pare eval generation` with sacrebleu, rouge-score and transformers on real text.

    python Scripts/parity_generation.py [--pare .build/release/pare] [--lines 2000] TEXT...
        [--teacher MODEL]

What is compared with the lines of a text are the same lines with words left out, swapped, repeated and
given other endings; with the lines after them; and with both. With --teacher, a Hugging Face folder, its log-likelihood
of continuations that it generates is compared too. Ends with 1 where something differs by more than
1e-9 (1e-4 for the teacher, which computes in float32). Checked with sacrebleu 2.6.0, rouge-score 0.1.2,
transformers 5.24.0.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a


def damaged(line: str, random: random.Random) -> str:
    words = line.split(" ")
    for _ in range(1 + len(words) // 8):
        i = random.randrange(len(words))
        match random.randrange(4):
            case 0: words[i] = ""
            case 1: words[i] = words[random.randrange(len(words))]
            case 2: words.insert(i, words[i])
            case 3: words[i] += random.choice(["s", "ed", "ing", "ly", "ness", "ation"])
    return " ".join(words)


def pare(program: str, *arguments: str) -> dict:
    result = subprocess.run([program, "eval", "generation", *arguments, "--json"],
                            capture_output=True, check=False)
    if result.returncode != 0:
        sys.exit(result.stderr.decode())
    return json.loads(result.stdout)


def expected(predictions: list[str], references: list[list[str]], stem: bool, lowercase: bool):
    """References: one list for each file."""
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem)
    scores = [scorer.score_multi([column[i] for column in references], prediction)
              for i, prediction in enumerate(predictions)]
    result = {}
    for name, ours in [("rouge1", "rouge_1"), ("rouge2", "rouge_2"), ("rougeL", "rouge_l")]:
        for field, key in [("fmeasure", "f1"), ("precision", "precision"), ("recall", "recall")]:
            result[f"{ours}_{key}"] = sum(getattr(s[name], field) for s in scores) / len(scores)
    bleu = BLEU(lowercase=lowercase).corpus_score(predictions, references)
    result |= {"bleu": bleu.score, "brevity_penalty": bleu.bp}
    words = [Tokenizer13a()(text.rstrip()).split() for text in predictions]
    for n in (1, 2, 3):
        grams = [tuple(w[i:i + n]) for w in words for i in range(len(w) - n + 1)]
        result[f"distinct_{n}"] = len(set(grams)) / max(len(grams), 1)
    return result


def teacher_likelihood(model: str, texts: list[dict]):
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    total, count = 0.0, 0
    for text in texts:
        prompt = tokenizer.encode(text["prompt"]).ids
        whole = tokenizer.encode(text["prompt"] + text["prediction"]).ids
        start = next((i for i, (a, b) in enumerate(zip(prompt, whole)) if a != b), len(prompt))
        with torch.inference_mode():
            logits = model(torch.tensor([whole])).logits[0].double()
        log_p = logits.log_softmax(-1)
        total += sum(log_p[i - 1, whole[i]].item() for i in range(max(start, 1), len(whole)))
        count += len(whole) - max(start, 1)
    return {"teacher_log_likelihood": total / count, "teacher_tokens": count}


def compare(title: str, ours: dict, theirs: dict, tolerance: float) -> bool:
    worst = max(theirs, key=lambda key: abs(ours[key] - theirs[key]))
    difference = abs(ours[worst] - theirs[worst])
    print(f"{title}: {len(theirs)} figures, largest difference {difference:.2g} ({worst}), "
          f"{ours['seconds']:.2f} s")
    return difference <= tolerance * max(1, abs(theirs[worst]))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=pathlib.Path)
    parser.add_argument("--pare", default=".build/release/pare")
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--teacher")
    options = parser.parse_args()
    generator, fine = random.Random(1), True
    with tempfile.TemporaryDirectory() as folder:
        def write(name: str, lines: list[str]) -> str:
            path = f"{folder}/{name}"
            pathlib.Path(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            return path

        for path in options.texts:
            content = path.read_text(encoding="utf-8").split("\n")
            lines = [line for line in content if line.strip()][:options.lines + 1]
            references = [lines[:-1], lines[1:]]
            predictions = [damaged(line, generator) for line in lines[:-1]]
            files = [write("a", references[0]), write("b", references[1])]
            shared = ["--predictions", write("p", predictions)]
            for columns in ((0,), (1,), (0, 1)):
                for stem, lowercase in [(False, False), (True, True)]:
                    flags = [f for f, on in [("--stem", stem), ("--lowercase", lowercase)] if on]
                    named = [x for c in columns for x in ("--references", files[c])]
                    fine &= compare(
                        f"{path.name}, {len(predictions)} lines, references {columns} {flags}",
                        pare(options.pare, *shared, *named, *flags),
                        expected(predictions, [references[c] for c in columns], stem,
                                 lowercase), 1e-9)
        if options.teacher:
            output = f"{folder}/generated.jsonl"
            pare(options.pare, options.teacher, "--prompts", str(options.texts[0]), "--limit", "20",
                 "--temperature", "1", "-o", output)
            texts = [json.loads(line) for line in open(output, encoding="utf-8")]
            ours = pare(options.pare, "--predictions", output, "--teacher", options.teacher)
            fine &= compare("teacher", ours, teacher_likelihood(options.teacher, texts), 1e-4)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
