#!/usr/bin/env python3
"""Times encoding beside Hugging Face's tokenizers (made with 0.23.3), both on one core.

    python Benchmarks/tokenizers.py [CORPORA] [FOLDER]

Trains one tokenizer per kind on the texts under CORPORA (../shared/corpora) into FOLDER (a
temporary one), encodes two megabytes of them, first with a fresh tokenizer (cold), then again
(warm), as one text and line by line, and prints megabytes per second. The Swift side is the test
`BenchmarkTests`; build it before with `swift build -c release --build-tests`. Both sides must
give the same ids.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
folder = str(pathlib.Path(__file__).resolve().parent)
sys.path = [path for path in sys.path if str(pathlib.Path(path or ".").resolve()) != folder]
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(vocab_size=50_000, initial_alphabet=alphabet, show_progress=False)


def gpt2():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(vocab_size=50_000, initial_alphabet=alphabet, show_progress=False)


def sentencepiece():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"] + FALLBACK
    return tokenizer, trainers.BpeTrainer(vocab_size=32_000, special_tokens=special, show_progress=False)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=32_000, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)


def llama2(trained):
    """The trained SentencePiece model behind normalizers instead of a pre-tokenizer."""
    tokenizer = Tokenizer.from_str(trained.to_str())
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def corpus(root):
    texts = [path.read_text(errors="replace") for path in sorted(root.rglob("*")) if path.is_file()]
    wanted = ["wikitext-2", "tinystories", "tinyshakespeare"]
    sample = ""
    for name in wanted:
        part = "".join(p.read_text() for p in sorted((root / name).iterdir()))
        sample += part[: 2_000_000 // len(wanted)]
    return texts, sample


def rate(seconds, text):
    return len(text.encode()) / seconds / 1e6


def hugging_face(path, text):
    lines = text.split("\n")
    figures = {}
    for mode, work in [
        ("whole", lambda t: t.encode(text, add_special_tokens=False)),
        ("whole, no offsets", lambda t: t.encode_batch_fast([text], add_special_tokens=False)),
        ("lines", lambda t: [t.encode(line, add_special_tokens=False) for line in lines]),
        ("lines, no offsets", lambda t: t.encode_batch_fast(lines, add_special_tokens=False)),
    ]:
        tokenizer = Tokenizer.from_file(path)
        for state in ["cold", "warm"]:
            start = time.perf_counter()
            result = work(tokenizer)
            figures[f"{mode}, {state}"] = rate(time.perf_counter() - start, text)
            if mode == "whole":
                pathlib.Path(path).with_suffix(".ids").write_text(" ".join(map(str, result.ids)))
    return figures


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/corpora")
    out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    out.mkdir(exist_ok=True)
    texts, sample = corpus(root)
    (out / "text.txt").write_text(sample)
    names = ["byte-level", "gpt2", "sentencepiece", "unigram", "llama2"]
    for name, make in zip(names, [byte_level, gpt2, sentencepiece, unigram, None]):
        path = out / f"{name}.json"
        if path.exists():
            continue
        if make:
            tokenizer, trainer = make()
            tokenizer.train_from_iterator(texts, trainer)
        else:
            tokenizer = llama2(Tokenizer.from_file(str(out / "sentencepiece.json")))
        tokenizer.save(str(path))
    sample = (out / "text.txt").read_text()
    for name in names:
        figures = hugging_face(str(out / f"{name}.json"), sample)
        for mode, value in figures.items():
            print(f"tokenizers, {name}, {mode}: {value:.1f}")
    result = subprocess.run(
        ["swift", "test", "-c", "release", "--skip-build", "--filter", "BenchmarkTests"],
        env={**os.environ, "PARE_BENCHMARK": str(out.resolve())}, capture_output=True, text=True)
    print("\n".join(line for line in result.stdout.split("\n") if line.startswith("pare, ")))
    if result.returncode:
        raise SystemExit("the Swift side failed or gave other ids:\n" + result.stdout[-2000:])


if __name__ == "__main__":
    main()
