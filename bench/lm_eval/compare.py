"""Compares each example's log-likelihoods and outcome: `python compare.py SAMPLES.jsonl REFERENCE_DIR`.

An example whose outcome differs while its two likeliest choices are as good as equal is counted as a tie: there
the rounding of f32 decides. Fails above 1e-3 of a log-likelihood, or if another outcome differs.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

ours = defaultdict(dict)
for line in open(sys.argv[1]):
    sample = json.loads(line)
    ours[sample["task"]][sample["row"]] = sample

NEAR = 1e-5


def is_tie(logliks):
    first, second = sorted(logliks)[-1:-3:-1]
    return first - second < NEAR


print(f"{'task':15} {'examples':>8} {'choices':>8} {'largest difference':>18} {'outcomes differ':>15} {'ties':>5}")
failed = False
for path in sorted(Path(sys.argv[2]).glob("*.jsonl")):
    task, theirs = path.stem, [json.loads(line) for line in open(path)]
    rows = ours.get(task, {})
    worst, choices, differ, ties = 0.0, 0, 0, 0
    for row in theirs:
        own = rows[row["row"]]
        assert len(own["logliks"]) == len(row["logliks"])
        worst = max([worst, *(abs(a - b) for a, b in zip(own["logliks"], row["logliks"]))])
        choices += len(row["logliks"])
        if own["acc"] != row["acc"] or own.get("acc_norm") != row.get("acc_norm"):
            tie = len(row["logliks"]) > 1 and own.get("acc_norm") == row.get("acc_norm") and is_tie(row["logliks"])
            ties += tie
            differ += not tie
    failed |= worst > 1e-3 or differ > 0
    print(f"{task:15} {len(theirs):8} {choices:8} {worst:18.2e} {differ:15} {ties:5}")
sys.exit(failed)
