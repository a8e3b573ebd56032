#!/usr/bin/env bash
# Compiles every kernel for six architectures without a GPU, prints what each needs, and fails if one spills registers or
# lacks the instructions of tensor cores and asynchronous copies. Needs the network: it installs NVIDIA's run-time
# compiler and disassembler from PyPI (about 100 MB) into a virtual environment, which VENV names.
#   bash bench/cuda/compile.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${VENV:-target/venv-nvrtc}
cargo=${CARGO:-cargo}
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-nvdisasm==13.5.37
nvidia=$(echo "$(realpath "$venv")"/lib/python3*/site-packages/nvidia/cu13)
"$cargo" build --quiet -p tokenformer-cuda --features driver --example compile_kernels
LD_LIBRARY_PATH="$nvidia/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" target/debug/examples/compile_kernels "$nvidia/bin/nvdisasm"
