"""Reads the TensorBoard files of a run with TensorBoard's own reader (pip install tensorboard; no TensorFlow) and holds
them to its metrics.jsonl: the same names, steps and values, also where the run was continued.

  python check_event.py runs/tiny-ppo
"""

import json
import math
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def main(folder):
    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    expected = {}
    with open(f"{folder}/metrics.jsonl") as lines:
        for line in map(json.loads, lines):
            for name, value in line.items():
                expected.setdefault(name, []).append((line["step"], value))
    tags = events.Tags()["scalars"]
    assert sorted(tags) == sorted(expected), set(tags) ^ set(expected)
    for name, series in expected.items():
        found = [(e.step, e.value) for e in events.Scalars(name)]
        assert [s for s, _ in found] == [s for s, _ in series], (name, found, series)
        for (_, value), (step, number) in zip(found, series):
            same = math.isnan(value) if number is None else value == float32(number)
            assert same, (name, step, value, number)
    steps = len(expected["step"])
    print(f"{len(tags)} scalars of {steps} steps equal; file version {events.file_version}")


main(sys.argv[1])
