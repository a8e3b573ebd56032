#!/usr/bin/env bash
# kills.sh TOKENFORMER [KILLS] [SEED]: kills a run on pictures at random moments (50 by default) with SIGKILL, lets it go on
# each time, and compares what it leaves with an uninterrupted run, byte for byte: checkpoints with the average of the
# weights, pointers, and records without what a clock measured.
#
# A third of the kills come at any moment, a third while a checkpoint is written, a third around the growth.
set -euo pipefail
program=$(realpath "${1:?usage: kills.sh TOKENFORMER [KILLS] [SEED]}")
kills=${2:-50}
RANDOM=${3:-1}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

"$program" data make fractals --classes 4 --per-class 40 --test-per-class 4 --size 16 --valid 0.2 --out set >/dev/null
cat >recipe.toml <<'RECIPE'
seed = 5
[data]
dir = "set"
[model]
preset = "vit-cifar"
width = 48
layers = 2
heads = 2
slots = { qkv = 32, proj = 32, ffn = 64 }
input = { height = 16, width = 16 }
[images]
workers = 2
[images.augment]
crop = { kind = "resized", scale = [0.3, 1.0], ratio = [0.75, 1.33] }
flip = 0.5
smoothing = 0.1
rand_augment = { operations = 2 }
erase = { probability = 0.5 }
mix = { mixup_alpha = 0.8 }
[ema]
decay = 0.9
[train]
steps = 80
batch = 8
accumulate = 2
drop_path = 0.2
[schedule]
lr = 5e-3
warmup_steps = 5
[eval]
every = 10
[checkpoint]
every = 4
keep = 3
[log]
every = 3
[[grow]]
at_step = 41
control = 3
qkv = "+8"
proj = "+8"
ffn = "+32"
layers = 1
RECIPE

train() { exec "$program" train --config recipe.toml --out "$1" --threads 2; }

# What must be equal: files of checkpoints and pointers, records without notes and times.
remains() {
    (cd "$1" && find checkpoints latest best -type f -print0 | sort -z | xargs -0 sha256sum)
    grep -v '"kind":"note"' "$1/metrics.jsonl" | sed 's/"step_ms".*"skipped"/"skipped"/'
}

start=$(date +%s%N)
(train whole) >/dev/null 2>&1
run_ms=$((($(date +%s%N) - start) / 1000000))
remains whole >whole.txt
echo "an uninterrupted run takes $run_ms ms and leaves $(wc -l <whole.txt) lines to compare"

at_random() { sleep "$(printf '%d.%03d' $((RANDOM * run_ms / 32768 / 1000)) $((RANDOM % 1000)))"; }
wait_for() { # seconds are long enough for every run here
    local until=$((SECONDS + 120))
    until eval "$1" || ! kill -0 "$child" 2>/dev/null || [ $SECONDS -gt $until ]; do :; done
}

done_kills=0 runs=0 missed=0
while [ $done_kills -lt "$kills" ]; do
    (train killed) >out.txt 2>&1 &
    child=$!
    case $((RANDOM % 3)) in
        0) at_random ;;
        1) at_random; wait_for 'ls -d killed/checkpoints/.tmp-step-* >/dev/null 2>&1' ;;
        2) wait_for 'grep -q "\"kind\":\"train\",\"step\":4[01]," killed/metrics.jsonl 2>/dev/null'
           sleep "0.0$((RANDOM % 100))" ;;
    esac
    if kill -KILL "$child" 2>/dev/null; then
        done_kills=$((done_kills + 1))
        wait "$child" 2>/dev/null || true
    else
        missed=$((missed + 1))
    fi
    # Now and then a run is left to its end, and compared.
    if [ $((done_kills % 5)) = 0 ] || ! kill -0 "$child" 2>/dev/null && [ -s out.txt ] && grep -q "^done after" out.txt; then
        (train killed) >out.txt 2>&1 || { cat out.txt; exit 1; }
        remains killed >killed.txt
        cmp whole.txt killed.txt || { diff whole.txt killed.txt | head -20; echo "DIFFERENT after $done_kills kills"; exit 1; }
        runs=$((runs + 1))
        rm -rf killed
    fi
done
if [ -d killed ]; then
    (train killed) >out.txt 2>&1 || { cat out.txt; exit 1; }
    remains killed >killed.txt
    cmp whole.txt killed.txt
    runs=$((runs + 1))
fi
echo "$done_kills kills of a living run ($missed came after its end); all $runs resumed runs left the same bytes"
