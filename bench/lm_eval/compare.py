"""Compares each example's log-likelihoods and outcome: `python compare.py SAMPLES.jsonl REFERENCE_DIR`."""

import json
import sys
from collections import defaultdict
from pathlib import Path

ours = defaultdict(dict)
for line in open(sys.argv[1]):
    sample = json.loads(line)
    ours[sample["task"]][sample["row"]] = sample

print(f"{'task':15} {'examples':>8} {'choices':>8} {'largest difference':>18} {'acc differs':>12} {'acc_norm differs':>16}")
failed = False
for path in sorted(Path(sys.argv[2]).glob("*.jsonl")):
    task, theirs = path.stem, [json.loads(line) for line in open(path)]
    rows = ours.get(task, {})
    failed |= len(rows) != len(theirs)
    worst, choices, acc, norm = 0.0, 0, 0, 0
    for row in theirs:
        own = rows[row["row"]]
        failed |= len(own["logliks"]) != len(row["logliks"])
        worst = max([worst, *(abs(a - b) for a, b in zip(own["logliks"], row["logliks"]))])
        choices += len(row["logliks"])
        acc += own["acc"] != row["acc"]
        norm += own.get("acc_norm") != row.get("acc_norm")
    failed |= worst > 1e-3 or acc > 0 or norm > 0
    print(f"{task:15} {len(theirs):8} {choices:8} {worst:18.2e} {acc:12} {norm:16}")
sys.exit(failed)
