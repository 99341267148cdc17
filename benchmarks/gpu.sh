#!/usr/bin/env bash
# All benchmarks that need a GPU, in one call of less than 8 minutes on an H100, on a machine that needs no network.
#
#   bash benchmarks/gpu.sh pack FOLDER     with a network: the wheels that are often missing
#   bash benchmarks/gpu.sh check [FOLDER]  on the GPU: the tests that need one (two minutes); check.log, in OUT
#   bash benchmarks/gpu.sh [run [FOLDER]]  on the GPU: benchmarks.md, benchmarks.jsonl (the same as data, a line for
#                                          each script) and benchmarks.log, in OUT
#
# OUT is build/benchmarks unless it is set. A step that fails or takes too long does not stop the others; the summary at
# the end says what became of each, and the exit status is 1 if one failed. LIMIT (seconds) bounds the whole.
# QUICK=1 runs the same steps on tiny models, on any machine.
set -uo pipefail
cd "$(dirname "$0")/.."
task=${1:-run}
folder=${2:-build/wheels}

if [ "$task" = pack ]; then
    exec bash tools/emoji/gpu.sh wheels "$folder" 'torchao>=0.18' 'optuna>=5,<6' alembic mako colorlog greenlet \
        sqlalchemy rich markdown-it-py mdurl pytest pytest-timeout pluggy iniconfig hypothesis sortedcontainers peft pygments \
        'hatchling>=1.27' pathspec trove-classifiers
fi
case $task in run | check) ;; *) echo "pack, check or run, not $task" >&2; exit 2 ;; esac

out=${OUT:-build/benchmarks}
limit=${LIMIT:-465}
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
mkdir -p "$out"
: >"$out/benchmarks.log"
: >"$out/benchmarks.md"
: >"$out/benchmarks.jsonl"
if ls "$folder"/*.whl >/dev/null 2>&1; then
    python3 -m pip install --quiet --no-index --no-deps --target build/gpu-packages --upgrade "$folder"/*.whl
fi
export PYTHONPATH="build/gpu-packages:." PYTHONUNBUFFERED=1
if [ "$task" = check ]; then
    # Installed, since rewards and studies are found by their entry points.
    python3 -m pip install --quiet --no-index --no-deps --no-build-isolation --target build/gpu-packages --upgrade .
    set -o pipefail
    timeout --kill-after=5 "$limit" python3 -m pytest -m gpu -v -rA --tb=short tests/run/test_gpu.py 2>&1 |
        tee "$out/check.log"
    exit
fi
summary=()
failed=0
compiles=1

# step NAME SECONDS SCRIPT ARGUMENTS: one script, in a process and a time of its own.
step() {
    local name=$1 own=$2 script=$3 start=$SECONDS status=0
    local left=$((limit - SECONDS))
    [ "$own" -lt "$left" ] || own=$left
    if [ "$own" -lt 15 ]; then
        summary+=("$name: left out, no time")
        failed=1
        return 1
    fi
    echo "=== $name" | tee -a "$out/benchmarks.log"
    timeout --kill-after=5 "$own" python3 -m "benchmarks.$script" --json "$parts/$name.json" "${@:4}" \
        >"$parts/$name.md" 2>>"$out/benchmarks.log" || status=$?
    { cat "$parts/$name.md"; echo; } | tee -a "$out/benchmarks.md"
    if [ -f "$parts/$name.json" ]; then
        { tr -d '\n' <"$parts/$name.json"; echo; } >>"$out/benchmarks.jsonl"
    fi
    if [ "$status" = 0 ]; then
        summary+=("$name: done in $((SECONDS - start)) s")
        return 0
    fi
    [ "$status" = 124 ] && status="124, out of time"
    summary+=("$name: FAILED (status $status) after $((SECONDS - start)) s; see benchmarks.log")
    failed=1
    return 1
}

# With --compile a script measures the uncompiled blocks too; where compiling fails, those are measured alone.
both() {
    [ "$compiles" = 1 ] && step "$@" --compile && return
    compiles=0
    step "$1-uncompiled" "${@:2}"
}

sd3=(--model sd3-medium --dtype bfloat16 --device cuda)
flux=(--model flux-dev --dtype bfloat16 --device cuda)
large=1024 middle=512 matrix=8192
if [ -n "${QUICK:-}" ]; then
    sd3=(--model tiny-sd3 --dtype float32 --device cpu --backend eager)
    flux=(--model tiny-flux --dtype float32 --device cpu --backend eager)
    large=128 middle=64 matrix=128
fi
medium=("${sd3[@]}" --size "$middle")

nvidia-smi -L 2>/dev/null || echo "no NVIDIA GPU"

both candidates-512 125 candidates "${medium[@]}" --candidates 32 --batch 16 --steps 14 --subset 4 --rounds 2 \
    --seconds 15
step work-512 35 work "${medium[@]}" --batch 8 --steps 8 --rounds 3 --seconds 10 --matrix "$matrix"
step memory-512 60 memory "${medium[@]}" --batch 4 --steps 2 --rounds 1
step flux-512 50 candidates "${flux[@]}" --size "$middle" --candidates 8 --batch 4 --steps 8 --subset 2 --rounds 2 \
    --seconds 10
step scaling-512 40 scaling "${medium[@]}" --batch 4 --steps 4 --rounds 3 --seconds 2
step recompilations-512 60 recompilations "${medium[@]}" --batch 4 --steps 2
both candidates-1024 115 candidates "${sd3[@]}" --size "$large" --candidates 16 --batch 8 --steps 14 --subset 2 \
    --rounds 2 --seconds 10
# Eight bits come last, in steps of their own, since torchao may not fit the machine's torch.
if [ -z "${QUICK:-}" ]; then
    step candidates-fp8 80 candidates "${sd3[@]}" --size "$large" --candidates 8 --batch 8 --steps 8 --subset 1 \
        --rounds 2 --seconds 10 --compile --fp8
fi
forms=("bfloat16" "bfloat16, int8" "bfloat16, float8")
[ -n "${QUICK:-}" ] || forms+=("bfloat16, float8_dynamic")
step weights 60 weights --model emoji --steps 12 --rounds 2 --seconds 10 --forms "${forms[@]}"

printf '%s\n' "## Summary, after $SECONDS s" "" "${summary[@]/#/- }" | tee -a "$out/benchmarks.md"
exit "$failed"
