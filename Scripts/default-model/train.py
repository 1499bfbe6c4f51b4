#!/usr/bin/env python3
"""Trains the default model: a small Llama that tells simple English stories.

    python train.py --text train.txt sampled.txt … --valid valid.txt --out DIR

The first text counts `--repeat` times, the others once. Stories end with <|endoftext|>. Writes a
Hugging Face folder in bf16 and prints bits per byte of the bf16 weights on the validation text:
one token stream, non-overlapping windows of the context with BOS before each, all tokens but the
BOS scored, nats / ln 2 / bytes of text. Made with torch 2.15.0, transformers 5.24.0, tokenizers
0.23.3 on two cores of a CPU with AVX-512 BF16, in about ten minutes. Twice as many tokens make it
worse: two megabytes of the first text are soon known by heart.
"""
import argparse
import json
import math
import pathlib
import time

import torch
import torch.nn.functional as F
from tokenizers import (
    Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers)
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

END = "<|endoftext|>"
PATTERN = (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def make_tokenizer(stories: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(stories, trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    # Every story follows the token that ends the one before.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))])
    return tokenizer


def read_stories(path: str) -> list[str]:
    text = pathlib.Path(path).read_text(encoding="utf-8")
    return [s.strip() for s in text.split(END) if len(s.strip()) > 50]


def stream(tokenizer: Tokenizer, stories: list[str]) -> torch.Tensor:
    end = tokenizer.token_to_id(END)
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(stories, add_special_tokens=False):
        ids.append(end)
        ids.extend(encoding.ids)
    ids.append(end)
    return torch.tensor(ids)


@torch.inference_mode()
def bits_per_byte(model, tokenizer: Tokenizer, path: str, context: int) -> float:
    text = pathlib.Path(path).read_text(encoding="utf-8")
    ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)
    bos = tokenizer.token_to_id(END)
    total = 0.0
    for start in range(0, len(ids), context - 1):
        window = ids[start:start + context - 1]
        inputs = torch.cat([torch.tensor([bos]), window[:-1]])[None]
        logits = model(inputs).logits[0].float()
        total += F.cross_entropy(logits, window, reduction="sum").item()
    return total / math.log(2) / len(text.encode())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--valid", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokens", type=int, default=5_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--muon-rate", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    texts = [read_stories(path) for path in options.text]
    tokenizer = make_tokenizer(texts[0], options.vocabulary)
    end = tokenizer.token_to_id(END)
    generator = torch.Generator().manual_seed(options.seed)
    stories = texts[0] * options.repeat + [s for text in texts[1:] for s in text]
    order = torch.randperm(len(stories), generator=generator).tolist()
    tokens = stream(tokenizer, [stories[i] for i in order])
    print(f"{len(tokens)} training tokens", flush=True)

    config = LlamaConfig(
        vocab_size=options.vocabulary, hidden_size=256, intermediate_size=768,
        num_hidden_layers=options.layers, num_attention_heads=4, num_key_value_heads=2,
        head_dim=64, max_position_embeddings=options.context, rms_norm_eps=1e-5,
        rope_theta=10000.0, tie_word_embeddings=True, bos_token_id=end, eos_token_id=end)
    model = LlamaForCausalLM(config)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=options.muon_rate, momentum=0.95, weight_decay=0.05),
        torch.optim.AdamW(others, lr=options.rate, betas=(0.9, 0.95), weight_decay=0.0)]
    rates = [options.muon_rate, options.rate]

    began = time.time()
    step = seen = 0
    smooth = None
    while True:
        # Linear warm-up, constant, then linear decay over the last 40 % of the tokens.
        done = seen / options.tokens
        if done >= 1:
            break
        factor = min(1.0, (step + 1) / 50, max(0.0, (1 - done) / 0.4))
        for optimizer, rate in zip(optimizers, rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        starts = torch.randint(
            0, len(tokens) - options.length - 1, (options.batch,), generator=generator)
        batch = torch.stack([tokens[s:s + options.length + 1] for s in starts])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(batch[:, :-1]).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        seen += batch[:, 1:].numel()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0:
            seconds = time.time() - began
            print(f"step {step} loss {smooth:.4f} {seen / seconds:.0f} tokens/s "
                  f"{done:.0%}", flush=True)
        if step % 500 == 0:
            model.eval()
            bpb = bits_per_byte(model, tokenizer, options.valid, options.context)
            print(f"step {step} bits per byte {bpb:.4f}", flush=True)
            model.train()

    out = pathlib.Path(options.out)
    model = model.to(torch.bfloat16)
    model.save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END,
        "model_max_length": options.context, "clean_up_tokenization_spaces": False}, indent=2))
    reloaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    bpb = bits_per_byte(reloaded, tokenizer, options.valid, options.context)
    print(json.dumps({"steps": step, "tokens": seen, "bits_per_byte": round(bpb, 4),
                      "parameters": sum(p.numel() for p in reloaded.parameters())}))
    prompt = torch.tensor([tokenizer.encode("Once upon a time").ids])
    for sample in (False, True):
        ids = reloaded.generate(prompt, do_sample=sample, temperature=0.8 if sample else None,
                                top_k=0 if sample else None, max_new_tokens=120,
                                pad_token_id=end)
        print(tokenizer.decode(ids[0].tolist()))


if __name__ == "__main__":
    main()
