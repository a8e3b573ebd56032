#!/usr/bin/env bash
# Trains with processes that MPI connects, and checks what docs/ranks.md promises: equal bytes on 1, 2 and 4 ranks with a growth
# in the middle, moments on one rank each, kills at random moments, hosts that a network separates. Installs MPICH, or with
# MPI=openmpi Open MPI, from the Python registry into a folder that you name.
#
#   bench/ranks/run.sh [FOLDER] [PART...]     parts: bytes tokens kill hosts signals launch; speed, sums and plan run only if they are named
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${1:-target/ranks}; shift || true
parts=("$@"); [ $# -gt 0 ] || parts=(bytes tokens launch signals kill hosts)
mkdir -p "$work"; work=$(cd "$work" && pwd)
if [ ! -x "$work/mpi/bin/mpiexec" ]; then
    python3 -m venv "$work/mpi"
    "$work/mpi/bin/pip" install --quiet "${MPI:-mpich}"
fi
export PATH="$work/mpi/bin:$PATH"
# Open MPI starts no ranks for root, and no more of them than cores, unless it is told to.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
program=${TOKENFORMER:-target/debug/tokenformer}
[ -x "$program" ] || cargo build
program=$(realpath "$program")
exec python3 bench/ranks/check.py "$work" "$program" "${parts[@]}"
