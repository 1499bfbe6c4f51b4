#!/usr/bin/env python3
"""Makes a Llama checkpoint of real size with random weights, to measure speed and memory on.

    python Scripts/make-synthetic-model.py --out synthetic-1b

By default the shape of Llama 3.2 1B: hidden 2048, 16 layers, 32 heads on 8, ffn 8192, tied, bf16, in
three shards, with a byte-level vocabulary of 128,000 trained on made-up words and Llama 3's split
pattern. Memory stays below two tensors. Needs torch, safetensors, tokenizers.
"""
import argparse
import json
import pathlib
import random

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
           r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def made_up_lines(rng: random.Random, count: int):
    onsets = "b br c ch d dr f g gl h j k kn l m n p pl qu r s sh st t tr v w z".split()
    vowels = "a ai e ea i o oo ou u y".split()
    ends = ["", "", "n", "r", "s", "t", "l", "ck", "nd", "ing", "ed", "ly"]

    def word():
        return "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(rng.randint(1, 4))) \
            + rng.choice(ends)

    words = [word() for _ in range(250_000)]
    for _ in range(count):
        yield " ".join(rng.choices(words, k=12)).capitalize() + rng.choice([".", "!", ", 42."])


def make_tokenizer(path: pathlib.Path, size: int, rng: random.Random) -> int:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer.train_from_iterator(made_up_lines(rng, 120_000), trainers.BpeTrainer(
        vocab_size=size, special_tokens=[begin, end], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, 0)])
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": begin, "eos_token": end, "tokenizer_class": "PreTrainedTokenizerFast"}))
    with open(path / "text.txt", "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in made_up_lines(rng, 4000))
    return tokenizer.get_vocab_size()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--ffn", type=int, default=8192)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-value-heads", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=128_000)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    o.out.mkdir(parents=True)
    vocabulary = make_tokenizer(o.out, o.vocabulary, random.Random(o.seed))
    head_dim = o.hidden // o.heads
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "vocab_size": vocabulary, "hidden_size": o.hidden, "intermediate_size": o.ffn,
        "num_hidden_layers": o.layers, "num_attention_heads": o.heads,
        "num_key_value_heads": o.key_value_heads, "head_dim": head_dim, "hidden_act": "silu",
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "bos_token_id": 0, "eos_token_id": 1,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0,
                            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                            "original_max_position_embeddings": 4096}}
    (o.out / "config.json").write_text(json.dumps(config, indent=2))

    keys = o.key_value_heads * head_dim
    shapes = [("model.embed_tokens.weight", (vocabulary, o.hidden))]
    for layer in range(o.layers):
        name = f"model.layers.{layer}"
        shapes += [
            (f"{name}.self_attn.q_proj.weight", (o.hidden, o.hidden)),
            (f"{name}.self_attn.k_proj.weight", (keys, o.hidden)),
            (f"{name}.self_attn.v_proj.weight", (keys, o.hidden)),
            (f"{name}.self_attn.o_proj.weight", (o.hidden, o.hidden)),
            (f"{name}.mlp.gate_proj.weight", (o.ffn, o.hidden)),
            (f"{name}.mlp.up_proj.weight", (o.ffn, o.hidden)),
            (f"{name}.mlp.down_proj.weight", (o.hidden, o.ffn)),
            (f"{name}.input_layernorm.weight", (o.hidden,)),
            (f"{name}.post_attention_layernorm.weight", (o.hidden,))]
    shapes.append(("model.norm.weight", (o.hidden,)))
    total = sum(2 * torch.Size(shape).numel() for _, shape in shapes)
    generator = torch.Generator().manual_seed(o.seed)
    weight_map, shard, filled, number = {}, {}, 0, 1

    def flush():
        nonlocal shard, filled, number
        file = f"model-{number:05}-of-{o.shards:05}.safetensors"
        save_file(shard, o.out / file, metadata={"format": "pt"})
        weight_map.update({name: file for name in shard})
        shard, filled, number = {}, 0, number + 1

    for name, shape in shapes:
        size = 2 * torch.Size(shape).numel()
        if filled and filled + size > total / o.shards and number < o.shards:
            flush()
        tensor = torch.ones(shape) if len(shape) == 1 else \
            torch.empty(shape).normal_(0, 0.02, generator=generator)
        shard[name] = tensor.bfloat16()
        filled += size
    flush()
    assert number == o.shards + 1, "the shards came out uneven"
    (o.out / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2))
    print(f"{o.out}: {total / 1e9:.2f} GB of weights, vocabulary {vocabulary}")


if __name__ == "__main__":
    main()
