"""Runs ours and the PyTorch peer in turn and prints the table of ratios for BENCHMARKS.md.

    python run.py path/to/tokenformer [--pairs 5] [--only train:tiny:f32 ...]

For each row every PyTorch mode of the same precision runs once, for two steps, and the fastest twice more with memory in
small and in huge pages; the faster of these then alternates with ours.
Where it needs more than ten times our time, it runs one step a pair.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MODES = {
    ("train", "f32"): ["eager", "fused", "compile"],
    ("train", "bf16"): ["autocast", "autocast-compile"],
    ("prefill", "f32"): ["eager", "compile"],
    ("prefill", "bf16"): ["bf16", "bf16-compile"],
    ("decode", "f32"): ["eager", "compile"],
    ("decode", "bf16"): ["bf16", "bf16-compile"],
}
ROWS = [f"train:{preset}:{precision}" for precision in ("f32", "bf16") for preset in ("tiny", "small", "150m")] + [
    f"{what}:150m:{precision}" for what in ("prefill", "decode") for precision in ("f32", "bf16")]


HUGE_PAGES = ", huge pages"


def run(command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def steps(what, preset):
    return {"tiny": 9, "small": 5}.get(preset, 3) if what == "train" else 3


def ours(binary, what, preset, precision, threads):
    command = [binary, "bench", what, "--preset", preset, "--steps", str(steps(what, preset)), "--threads", str(threads), "--json"]
    return run(command + ([] if precision == "f32" else ["--precision", precision]))


def theirs(what, preset, mode, threads, steps):
    command = [sys.executable, os.path.join(HERE, "peer.py"), what, "--preset", preset, "--mode", mode.removesuffix(HUGE_PAGES),
               "--steps", str(steps), "--threads", str(threads)]
    return run(command, THP_MEM_ALLOC_ENABLE="1" if mode.endswith(HUGE_PAGES) else "0")


def processor():
    with open("/proc/cpuinfo") as f:
        names = {line.split(":")[1].strip() for line in f if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.machine()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=ROWS, choices=ROWS, metavar="WHAT:PRESET:PRECISION")
    args = parser.parse_args()
    print(f"{processor()}, {args.threads} threads, {args.pairs} alternating pairs, medians (lowest to highest)\n")
    print("| what | ours tokens/s | PyTorch tokens/s | its mode | ratio | ours peak | PyTorch peak | memory ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for row in args.only:
        what, preset, precision = row.split(":")
        rate_of = lambda mode: theirs(what, preset, mode, args.threads, 2)["tokens_per_s"]
        trial = {mode: rate_of(mode) for mode in MODES[what, precision]}
        fastest = max(trial, key=trial.get)
        final = {mode: max(rate_of(mode) for _ in range(2)) for mode in (fastest, fastest + HUGE_PAGES)}
        mode = max(final, key=final.get)
        own = ours(args.binary, what, preset, precision, args.threads)["tokens_per_s"]
        count = 1 if 10 * final[mode] < own else steps(what, preset)
        pairs = []
        for _ in range(args.pairs):
            pairs.append((ours(args.binary, what, preset, precision, args.threads), theirs(what, preset, mode, args.threads, count)))
        spread = lambda xs, f: f"{f(statistics.median(xs))} ({f(min(xs))} to {f(max(xs))})"
        rate = lambda x: f"{x:,.0f}" if x >= 100 else f"{x:.1f}"
        a, b = [p[0]["tokens_per_s"] for p in pairs], [p[1]["tokens_per_s"] for p in pairs]
        ratios = [x / y for x, y in zip(a, b)]
        memory = [statistics.median(p[i]["peak_rss_bytes"] for p in pairs) / 2**30 for i in (0, 1)]
        print(f"| {what} {preset} {precision} | {spread(a, rate)} | {spread(b, rate)} | {mode} | "
              f"{spread(ratios, lambda x: f'{x:.2f}x')} | {memory[0]:.2f} GiB | {memory[1]:.2f} GiB | {memory[0] / memory[1]:.2f} |", flush=True)
