"""Runs ours and the PyTorch peer in turn and prints the table of ratios for BENCHMARKS.md.

    python run.py path/to/tokenformer [--pairs 5] [--only train:tiny:f32 ...]

For each row every PyTorch mode of the same precision runs for two steps, and the fastest twice more with memory in small and in
huge pages; the faster of these then alternates with ours, in a process that lives on, so that it compiles once.
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
    ("predict", "f32"): ["eager", "compile"],
}
ROWS = [f"train:{preset}:{precision}" for precision in ("f32", "bf16") for preset in ("tiny", "small", "150m")] + [
    f"{what}:150m:{precision}" for what in ("prefill", "decode") for precision in ("f32", "bf16")]
# Models of pictures; the number after a preset is that of pictures at a time.
ROWS += ["train:vit-mnist:f32", "train:vit-b16:f32", "predict:vit-b16@1:f32", "predict:vit-b16@8:f32"]


HUGE_PAGES = ", huge pages"


def run(command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def per_s(found):
    return found.get("tokens_per_s") or found["images_per_s"]


def sizes(preset):
    """Flags of a preset, with its number of pictures at a time if it has one."""
    name, _, batch = preset.partition("@")
    return ["--preset", name] + (["--batch", batch] if batch else [])


def steps(what, preset):
    return {"tiny": 9, "small": 5, "vit-mnist": 9}.get(preset, 3) if what == "train" else 3


def ours(binary, what, preset, precision, threads):
    command = [binary, "bench", what, *sizes(preset), "--steps", str(steps(what, preset)), "--threads", str(threads), "--json"]
    return run(command + ([] if precision == "f32" else ["--precision", precision]))


class Peer:
    """A PyTorch process that is warmed up once and measures when it is asked to."""

    def __init__(self, what, preset, mode, threads):
        self.mode = mode
        command = [sys.executable, os.path.join(HERE, "peer.py"), what, *sizes(preset), "--mode", mode.removesuffix(HUGE_PAGES),
                   "--threads", str(threads), "--ask"]
        huge = "1" if mode.endswith(HUGE_PAGES) else "0"
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "THP_MEM_ALLOC_ENABLE": huge})

    def measure(self, steps):
        print(steps, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{' '.join(self.process.args)} failed")
        return json.loads(answer)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def fastest(peers, tries):
    """The fastest of the processes, each of which is started when those before it have measured; the others are ended."""
    best, best_rate = None, 0.0
    for peer in peers:
        rate = max(per_s(peer.measure(2)) for _ in range(tries))
        if rate > best_rate:
            best, peer, best_rate = peer, best, rate
        if peer:
            peer.end()
    return best


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
    print("| what | ours, tokens/s or images/s | PyTorch | its mode | ratio | ours peak | PyTorch peak | memory ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for row in args.only:
        what, preset, precision = row.split(":")
        start = lambda mode: Peer(what, preset, mode, args.threads)
        first = fastest(map(start, MODES[what, precision]), 1)
        again = (make() for make in (lambda: first, lambda: start(first.mode + HUGE_PAGES)))
        peer = fastest(again, 2)
        own = lambda: ours(args.binary, what, preset, precision, args.threads)
        count = 1 if 10 * per_s(peer.measure(1)) < per_s(own()) else steps(what, preset)
        pairs = [(own(), peer.measure(count)) for _ in range(args.pairs)]
        peer.end()
        spread = lambda xs, f: f"{f(statistics.median(xs))} ({f(min(xs))} to {f(max(xs))})"
        rate = lambda x: f"{x:,.0f}" if x >= 100 else f"{x:.3g}"
        a, b = [per_s(p[0]) for p in pairs], [per_s(p[1]) for p in pairs]
        ratios = [x / y for x, y in zip(a, b)]
        memory = [statistics.median(p[i]["peak_rss_bytes"] for p in pairs) / 2**30 for i in (0, 1)]
        print(f"| {what} {preset} {precision} | {spread(a, rate)} | {spread(b, rate)} | {peer.mode} | "
              f"{spread(ratios, lambda x: f'{x:.2f}x')} | {memory[0]:.2f} GiB | {memory[1]:.2f} GiB | {memory[0] / memory[1]:.2f} |", flush=True)
