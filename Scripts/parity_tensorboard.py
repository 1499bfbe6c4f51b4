#!/usr/bin/env python3
"""Reads a training's event files with TensorBoard's own reader and compares them with its metrics.

    python Scripts/parity_tensorboard.py DIRECTORY METRICS.jsonl

DIRECTORY holds the event files, METRICS.jsonl the same training's log. Samples of both, with a
resumed run among them, are written by

    PARE_WATCHING_FOLDER=DIRECTORY swift test --filter logsForOtherReaders

Ends with 1 where a step or a value (in float32) differs. Checked with tensorboard 2.21.0.
"""
import json
import math
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def float32(value) -> float:
    return math.nan if value is None else struct.unpack("f", struct.pack("f", value))[0]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
    events.Reload()
    expected = {}
    with open(sys.argv[2], encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            for name, value in line.items():
                if name != "step":
                    expected.setdefault(name, []).append((line["step"], float32(value)))
    tags = events.Tags()["scalars"]
    fine = set(tags) == set(expected)
    if not fine:
        print(f"tags {sorted(tags)}, expected {sorted(expected)}")
    for name in sorted(expected.keys() & set(tags)):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        same = len(found) == len(expected[name]) and all(
            a[0] == b[0] and (a[1] == b[1] or math.isnan(a[1]) and math.isnan(b[1]))
            for a, b in zip(found, expected[name]))
        print(f"{name}: {len(found)} values, {'equal' if same else 'DIFFERENT'}")
        fine &= same
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
