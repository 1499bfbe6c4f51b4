#!/bin/sh
# Trains the default model: a small Llama that tells simple English stories.
#
#   Scripts/default-model/train.sh PARE SMALL_MODEL STORIES VALID OUT
#
# PARE is the program, SMALL_MODEL a model trained on many more such stories (stories260K), STORIES two
# megabytes of stories that end with <|endoftext|>, VALID others to measure on. Two megabytes are soon
# known by heart, so the small model first writes fifteen more: continuations of the beginnings of
# STORIES at temperature 1, cut after their last whole sentence. Then 1,200 steps of 32 x 256 tokens;
# STORIES counts four times. Config and tokenizer are those in the package.
#
# loss.svg and metrics.jsonl beside this script are of the run that made the package's model (seed 0,
# every 20th step); its bf16 weights reach 1.115 bits per byte on VALID, one token stream in windows of
# 511 tokens with BOS before each.
set -eu
PARE=$1 SMALL=$2 STORIES=$3 VALID=$4 OUT=$5
RESOURCES=$(dirname "$0")/../../Sources/Recipes/Resources/stories
WORK=$OUT.samples
mkdir -p "$WORK"
for seed in 1 2 3 4 5 6 7; do
  [ -e "$WORK/$seed.jsonl" ] || "$PARE" eval generation "$SMALL" --prompts "$STORIES" \
    --prompt-tokens $((2 + 2 * seed)) --max-tokens 440 --temperature 1 --batch-size 96 \
    --seed $seed$seed$seed -o "$WORK/$seed.jsonl" > "$WORK/$seed.log"
done
python3 - "$WORK" <<'PYTHON'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
with open(folder / "sampled.txt", "w") as out:
    for seed in range(1, 8):
        for line in open(folder / f"{seed}.jsonl"):
            record = json.loads(line)
            text = (record["prompt"] + record["prediction"]).strip()
            text = text[:max(text.rfind(end) for end in ".!?\"") + 1]
            if len(text) > 50:
                out.write(text.strip() + "\n<|endoftext|>\n")
PYTHON
exec "$PARE" train "$RESOURCES/config.json" --tokenizer "$RESOURCES" \
  --data "$STORIES:4" --data "$WORK/sampled.txt" --validation "$VALID" --evaluate-every 200 \
  --steps 1200 --batch-size 32 --length 256 --packing windows --optimizer muon \
  --learning-rate 2.5e-3 --schedule wsd --decay-share 0.5 --warmup-steps 50 --ema 0.98 --seed 0 \
  --checkpoint-every 50 --dtype bfloat16 -o "$OUT"
