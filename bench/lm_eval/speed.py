"""Times `tokenformer eval --tasks` beside lm-eval with the model in PyTorch, alternating, on the same questions.

    python speed.py TOKENFORMER MODEL_DIR WHEEL TASK_DATA ROUNDS [--tasks piqa,arc_easy] [--limit 100] [--threads 2]

MODEL_DIR is a model directory with `tokenizer.json`; `make_model.py` makes one of the 150m preset. Wall times are of
whole programs, and so are processor times, which other programs disturb less. lm-eval's scoring time leaves its start and the loading of the model out; ours is always the wall time.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(command):
    start = time.perf_counter()
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu, done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenformer")
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("task_data", type=Path)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--tasks", default="piqa,arc_easy")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scored-only", action="store_true")
    args = parser.parse_args()
    flags = ["--tasks", args.tasks, "--limit", args.limit, "--threads", args.threads]
    here = Path(__file__).parent
    ours, theirs, scoring, cpu_ratios = [], [], [], []
    with tempfile.TemporaryDirectory() as out:
        samples, scored = Path(out) / "ours.jsonl", Path(out) / "reference"
        reference = [sys.executable, here / "reference.py", args.model_dir, args.wheel, scored, *flags]
        reference += ["--batch", args.batch, "--bootstrap", 100] + ["--scored-only"] * args.scored_only
        own = [args.tokenformer, "eval", "--model", args.model_dir, "--task-data", args.task_data, *flags]
        own += ["--samples", samples]
        for number in range(args.rounds):
            own_wall, own_cpu, _ = run(own)
            wall, cpu, text = run(reference)
            ours.append(own_wall)
            cpu_ratios.append(cpu / own_cpu)
            theirs.append(wall)
            lines = [json.loads(line) for line in text.splitlines() if line.startswith('{"task"')]
            scoring.append(sum(line["seconds"] for line in lines))
            print(
                f"round {number + 1}: {own_wall:.1f} s, {own_cpu:.1f} s of processors; "
                f"lm-eval {wall:.1f} s of which {scoring[-1]:.1f} s scoring, {cpu:.1f} s of processors",
                flush=True,
            )
        print(run([sys.executable, here / "compare.py", samples, scored])[2])
    spread = lambda values: f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
    ratio = lambda other: spread([b / a for a, b in zip(ours, other)])
    print(f"here {spread(ours)} s, lm-eval {spread(theirs)} s, of which scoring {spread(scoring)} s")
    print(f"lm-eval / here: wall {ratio(theirs)}, its scoring to our wall {ratio(scoring)}, processor time {spread(cpu_ratios)}")


if __name__ == "__main__":
    main()
