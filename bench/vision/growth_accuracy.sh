#!/usr/bin/env bash
# growth_accuracy.sh TOKENFORMER [SEEDS]: what an exact growth in the middle of a training does to the accuracy on 1,000
# held-out pictures: before and after the growth, and every 20 updates for 200 updates after it, for the weights and for
# their average; with zero keys under a joint norm, and with a norm per segment. CSV on standard output.
set -euo pipefail
program=$(realpath "${1:?usage: growth_accuracy.sh TOKENFORMER [SEEDS]}")
seeds=${2:-3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
"$program" data make fractals --classes 20 --per-class 200 --test-per-class 2 --size 32 --valid 0.25 --out set >/dev/null
echo "norm,seed,growth_logit_difference,top1_before,top1_after,ema_before,ema_after,largest_drop,largest_drop_of_average"
for norm in joint segment; do
    for seed in $(seq "$seeds"); do
        cat >recipe.toml <<RECIPE
seed = $seed
[data]
dir = "set"
[model]
preset = "vit-cifar"
init = "fan-in"
norm = "$norm"
width = 48
heads = 3
layers = 3
slots = { qkv = 32, proj = 32, ffn = 128 }
input = { patch = [4, 4] }
[images.augment]
crop = { kind = "padded", pixels = 2 }
smoothing = 0.1
[train]
steps = 400
batch = 32
[optimizer]
weight_decay = 0.1
[ema]
decay = 0.99
[schedule]
shape = "cosine"
lr = 2e-3
warmup_steps = 50
min_ratio = 0.01
[eval]
every = 20
[checkpoint]
every = 200
[[grow]]
at_step = 200
qkv = "+32"
proj = "+32"
ffn = "+256"
RECIPE
        rm -rf run
        "$program" train --config recipe.toml --out run ${THREADS:+--threads "$THREADS"} >/dev/null 2>log.txt || { tail -5 log.txt >&2; exit 1; }
        python3 - "$norm" "$seed" <<'PYTHON'
import json, sys
records = [json.loads(line) for line in open("run/metrics.jsonl")]
grow = next(r for r in records if r["kind"] == "grow")
evals = [r for r in records if r["kind"] == "eval"]
before, after = [r for r in evals if r["step"] == grow["step"]][:2]
later = [r for r in evals if grow["step"] < r["step"] <= grow["step"] + 200]
percent = lambda share: f"{100 * share:.2f}"
drop = lambda key: percent(max(before[key] - r[key] for r in later))
print(",".join([sys.argv[1], sys.argv[2], repr(grow["max_logit_diff"]), percent(before["top1"]), percent(after["top1"]),
                percent(before["ema_top1"]), percent(after["ema_top1"]), drop("top1"), drop("ema_top1")]), flush=True)
PYTHON
    done
done
