#!/usr/bin/env bash
# Trains with processes that MPI connects, and checks what docs/ranks.md promises: equal bytes on 1, 2 and 4 ranks with a growth
# in the middle, moments on one rank each, kills at random moments, hosts that a network separates. Installs MPICH from the
# Python registry into a folder that you name.
#
#   bench/ranks/run.sh [FOLDER] [PART...]     parts: bytes kill hosts signals launch; speed runs only if it is named
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${1:-target/ranks}; shift || true
parts=("$@"); [ $# -gt 0 ] || parts=(bytes launch signals kill hosts)
mkdir -p "$work"; work=$(cd "$work" && pwd)
if [ ! -x "$work/mpi/bin/mpiexec" ]; then
    python3 -m venv "$work/mpi"
    "$work/mpi/bin/pip" install --quiet mpich
fi
export PATH="$work/mpi/bin:$PATH"
program=${TOKENFORMER:-target/debug/tokenformer}
[ -x "$program" ] || cargo build
program=$(realpath "$program")
exec python3 bench/ranks/check.py "$work" "$program" "${parts[@]}"
