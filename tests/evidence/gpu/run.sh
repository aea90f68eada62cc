#!/usr/bin/env bash
# Takes what a GPU is asked for in one go, in at most TRIMTAB_GPU_SECONDS (480): OUT=results bash tests/evidence/gpu/run.sh
# Needs python3 with torch, triton, transformers, safetensors, tokenizers, numpy, pytest, psutil and nvidia-ml-py; no network.
# TRIMTAB_GPU_REHEARSAL=1 TRITON_INTERPRET=1: the processor stands in for the GPU. ../README.md says what comes back.
set -uo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
OUT=${OUT:-$root/build/gpu}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 2
cd "$root" || exit 2

scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
# Caches of its own, so that nothing taken earlier is read again; our compiled C++ kernels take a minute to build, and stay.
compiled=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/trimtab/kernels
mkdir -p "$compiled" "$scratch/cache/trimtab" "$scratch/data" && ln -s "$compiled" "$scratch/cache/trimtab/kernels"
export OUT TRIMTAB_GPU_WORK=$scratch/work XDG_CACHE_HOME=$scratch/cache XDG_DATA_HOME=$scratch/data
export TRITON_CACHE_DIR=$scratch/triton PYTHONUNBUFFERED=1 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
# Threads that wait for each other on a busy machine take minutes for tiny shapes.
case ${TRIMTAB_GPU_REHEARSAL:-0} in 0) ;; *) export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} ;; esac

# The end of all once more from outside, should the orchestrator itself hang.
seconds=${TRIMTAB_GPU_SECONDS:-480}
case $seconds in *[!0-9]*) seconds=480 ;; esac
timeout --kill-after=5 "$((seconds + 20))" "${PYTHON:-python3}" -m tests.evidence.gpu &
running=$!
trap 'kill -TERM "$running" 2>/dev/null' TERM INT
wait "$running"
status=$?
while kill -0 "$running" 2>/dev/null; do
  wait "$running"
  status=$?
done
exit "$status"
