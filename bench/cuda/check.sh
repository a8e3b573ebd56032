#!/usr/bin/env bash
# What to run first on a machine with a GPU. Needs no network and, besides the driver, NVRTC and cuBLASLt (of the CUDA
# toolkit, or of PyTorch's packages); PyTorch and compute-sanitizer are used where they are found, and said to be missing
# where not. Results go to the folder OUT.
#   cargo build --release -p tokenformer-gpu-check && bash bench/cuda/check.sh target/release/gpu-check
set -uo pipefail
check=$(realpath "${1:?usage: bash bench/cuda/check.sh PATH/TO/gpu-check}")
cd "$(dirname "$0")/../.."
out=${OUT:-gpu-check}
python=${PYTHON:-python3}
mkdir -p "$out"
status=0

# PyTorch's packages bring the libraries along.
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null)
for folder in "$packages"/nvidia/cu13/lib "$packages"/nvidia/cuda_nvrtc/lib "$packages"/nvidia/cublas/lib; do
  [ -d "$folder" ] && LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}

nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || echo "nvidia-smi: not found, or it failed"
"$check" --out "$out/gpu-check.json" | tee "$out/gpu-check.txt" || status=1

sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
if [ -x "$sanitizer" ]; then
  for tool in memcheck racecheck; do
    "$sanitizer" --tool "$tool" --error-exitcode 1 "$check" --quick --no-libraries --out "$out/$tool.json" \
      >"$out/$tool.txt" 2>&1 || { echo "compute-sanitizer $tool: failed, see $out/$tool.txt"; status=1; }
  done
else
  echo "compute-sanitizer: not found, memcheck and racecheck were not run"
fi

if "$python" -c 'import torch' 2>/dev/null; then
  "$python" bench/cuda/torch_step.py --out "$out/torch.json" || status=1
else
  echo "PyTorch: not found, there is no comparison"
fi

# The rows of BENCHMARKS.md.
"$python" - "$out" <<'ROWS' || status=1
import json, os, sys
out = sys.argv[1]
print("| what | step, ms | tokens/s | MFU | GiB |\n|---|---|---|---|---|")
def read(name):
    path = os.path.join(out, name)
    return json.load(open(path)) if os.path.exists(path) else None
ours, torch = read("gpu-check.json"), read("torch.json")
for check in (ours or {}).get("checks", []):
    v = check["values"]
    if "step (ms)" in v:
        mfu = v.get("MFU (6N + 12LTd)")
        print(f"| {check['name']}, {ours['gpu']} | {v['step (ms)']:.1f} | {v['tokens per second']:.0f} | "
              f"{'' if mfu is None else format(mfu, '.1%')} | {v['memory (GiB)']:.1f} |")
if torch:
    mfu = torch["mfu"]
    print(f"| PyTorch {torch['torch']}, compile, bf16, SDPA, {torch['gpu']} | {torch['step_ms']:.1f} | "
          f"{torch['tokens_per_second']:.0f} | {'' if mfu is None else format(mfu, '.1%')} | {torch['memory_gib']:.1f} |")
ROWS
exit $status
