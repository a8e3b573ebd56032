#!/usr/bin/env bash
# run.sh SECONDS [TARGET...]: makes the seeds, builds, and fuzzes each target for so many seconds, two at a time.
#
# Works with a stable compiler: the passes that count coverage are asked for by name, and no sanitizer is used.
# Prints the executions of each target and their sum; exits with 1 when a target failed. Inputs that failed are in
# artifacts/TARGET/, what the targets said in logs/.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:?usage: run.sh SECONDS [TARGET...]}
shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(cd fuzz_targets && ls -- *.rs | sed 's/\.rs$//' | grep -vx seeds)
fi
jobs=${JOBS:-2}

# A host triple keeps the flags away from build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# Decoders of pictures skip their checksums, which no mutation would get right.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
bins=(--bin seeds)
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
cargo build --release --locked --target "$host" --target-dir "$target_dir" "${bins[@]}" || exit 1

scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$scratch"' EXIT
export TOKENFORMER_FUZZ_DIR=$scratch RAYON_NUM_THREADS=1
mkdir -p logs
"$target_dir/$host/release/seeds" 2>logs/seeds.log || { cat logs/seeds.log; exit 1; }

fuzz() {
    local target=$1
    mkdir -p "corpus/$target" "artifacts/$target" "regressions/$target"
    "$target_dir/$host/release/$target" "corpus/$target" "regressions/$target" \
        -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" -max_len="${MAX_LEN:-8192}" \
        -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1 ${DICT:+-dict="$DICT"} \
        >"logs/$target.log" 2>&1
    echo $? >"logs/$target.rc"
}

for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    fuzz "$target" &
done
wait

total=0
failed=0
printf '%-16s %12s %10s %8s  %s\n' target executions per_second coverage result
for target in "${targets[@]}"; do
    log=logs/$target.log
    count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    speed=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log" | tail -1)
    coverage=$(grep -o ' cov: [0-9]*' "$log" | tail -1 | tr -dc 0-9)
    result=ok
    if [ "$(cat "logs/$target.rc")" != 0 ]; then
        result="FAILED, see $log"
        failed=1
    fi
    total=$((total + ${count:-0}))
    printf '%-16s %12s %10s %8s  %s\n' "$target" "${count:-?}" "${speed:-?}" "${coverage:-?}" "$result"
done
printf '%-16s %12s\n' total "$total"
exit $failed
