#!/usr/bin/env python3
"""Samples stories from a small Llama checkpoint, as extra training text for the default model.

    python sample_stories.py MODEL_DIR OUT.txt --megabytes 10 [--temperature 1.0] [--seed 1]

Stories are separated by <|endoftext|>; a story that does not end within the context is cut at its
last sentence. Made with torch 2.15.0, transformers 5.24.0, tokenizers 0.23.3.
"""
import argparse

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

SEPARATOR = "<|endoftext|>"


def cut_at_last_sentence(text: str) -> str:
    end = max(text.rfind(mark) for mark in '.!?"')
    return text[: end + 1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{options.model}/tokenizer.json")
    config = model.config
    prompt = torch.full((options.batch, 1), config.bos_token_id)
    written = 0
    with open(options.out, "w", encoding="utf-8") as out, torch.inference_mode():
        while written < options.megabytes * 1e6:
            ids = model.generate(
                prompt, do_sample=True, temperature=options.temperature, top_k=0, top_p=1.0,
                max_length=config.max_position_embeddings, pad_token_id=config.eos_token_id, cache_implementation="static")
            for row in ids.tolist():
                body = row[1:]
                ended = config.eos_token_id in body or config.bos_token_id in body
                stops = [i for i, t in enumerate(body)
                         if t in (config.eos_token_id, config.bos_token_id)]
                text = tokenizer.decode(body[: stops[0]] if stops else body).strip()
                if not ended:
                    text = cut_at_last_sentence(text)
                if len(text) < 100 or "\ufffd" in text:
                    continue
                written += out.write(f"{text}\n{SEPARATOR}\n")
            print(f"{written / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
