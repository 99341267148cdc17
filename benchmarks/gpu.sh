#!/usr/bin/env bash
# All benchmarks that need a GPU, in one call of at most ten minutes (LIMIT), without a network.
#
#   bash benchmarks/gpu.sh pack FOLDER     with a network: the wheels that are often missing
#   bash benchmarks/gpu.sh check [FOLDER]  on the GPU: the tests that need one (two minutes); check.log, in OUT
#   bash benchmarks/gpu.sh [run [FOLDER]]  on the GPU: benchmarks.md, benchmarks.jsonl (the same as data, a line for
#                                          each script) and benchmarks.log, in OUT
#
# OUT is build/benchmarks unless it is set. A step that fails or takes too long does not stop the others; the summary at
# the end says what became of each, and the exit status is 1 if one failed. LIMIT (seconds) bounds the whole, ONLY (a
# regular expression) picks steps by their names. QUICK=1 runs the same steps on tiny models, on any machine.
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
limit=${LIMIT:-590}
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
meeting=$parts/meeting
mkdir -p "$out" "$meeting"
if ls "$folder"/*.whl >/dev/null 2>&1; then
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target build/gpu-packages --upgrade "$folder"/*.whl
fi
export PYTHONPATH="build/gpu-packages:." PYTHONUNBUFFERED=1
if [ "$task" = check ]; then
    # Installed, since rewards and studies are found by their entry points.
    python3 -m pip install --quiet --no-index --no-deps --no-build-isolation --target build/gpu-packages --upgrade .
    set -o pipefail
    several=()
    if python3 -c "import xdist" 2>/dev/null; then several=(-n 4 -p no:benchmark); fi
    timeout --kill-after=5 "$limit" python3 -m pytest -m gpu -v -rA --tb=short "${several[@]}" tests/run/test_gpu.py 2>&1 |
        tee "$out/check.log"
    exit
fi

# step NAME SECONDS SCRIPT ARGUMENTS: one script, in a process and a time of its own. Of several in the background each
# waits until all are ready to be measured, or have ended; then they measure one after another.
step() {
    local name=$1 own=$2 start=$SECONDS status=0 left=$((limit - SECONDS))
    [[ $name =~ ${ONLY:-.} ]] || return 0
    [ "$own" -lt "$left" ] || own=$left
    if [ "$own" -lt 15 ]; then
        echo "- $name: left out, no time" >"$parts/$name.failed"
        return
    fi
    touch "$meeting/$name"
    timeout --kill-after=5 "$own" python3 -m "benchmarks.$3" --json "$parts/$name.json" --busy "$meeting/$name" "${@:4}" \
        >"$parts/$name.md" 2>"$parts/$name.log" || status=$?
    rm -f "$meeting/$name"
    if [ "$status" = 0 ]; then
        echo "- $name: done in $((SECONDS - start)) s" >"$parts/$name.done"
        return
    fi
    [ "$status" = 124 ] && status="124, out of time"
    echo "- $name: FAILED (status $status) after $((SECONDS - start)) s; see benchmarks.log" >"$parts/$name.failed"
}

# What was found so far goes to OUT, so that it is there if this is stopped.
collect() {
    local name
    : >"$out/benchmarks.md"
    : >"$out/benchmarks.jsonl"
    : >"$out/benchmarks.log"
    for name in $(cd "$parts" && ls -tr -- *.md 2>/dev/null); do
        name=${name%.md}
        { cat "$parts/$name.md"; echo; } >>"$out/benchmarks.md"
        { echo "=== $name"; cat "$parts/$name.log"; } >>"$out/benchmarks.log"
        [ -f "$parts/$name.json" ] && { tr -d '\n' <"$parts/$name.json"; echo; } >>"$out/benchmarks.jsonl"
    done
    { echo "## Summary, after $SECONDS s"; echo; cat "$parts"/*.done "$parts"/*.failed 2>/dev/null; } >>"$out/benchmarks.md"
}

device=(--dtype bfloat16 --device cuda)
medium=sd3-medium big=sd3.5-large flux=flux-dev large=1024 middle=512 matrix=8192
if [ -n "${QUICK:-}" ]; then
    device=(--dtype float32 --device cpu --backend eager)
    medium=tiny-sd3 big=tiny-sd3 flux=tiny-flux large=128 middle=64 matrix=128
fi
medium=(--model "$medium" "${device[@]}") big=(--model "$big" "${device[@]}") flux=(--model "$flux" "${device[@]}")

nvidia-smi -L 2>/dev/null || echo "no NVIDIA GPU"

forms=("bfloat16" "bfloat16, int8" "bfloat16, float8" "bfloat16, float8_dynamic") fp8=(--fp8)
[ -z "${QUICK:-}" ] || forms=(float16 --contents 1) fp8=()
few=(--rounds 2 --seconds 20)
eight=(--candidates 8 --batch 8 --subset 2 "${few[@]}" --compile)
four=(--candidates 4 --batch 4 --steps 6 --subset 1 "${few[@]}")

# Compiling takes longer than measuring, so what fits into the GPU's memory together compiles side by side.
step weights 260 weights --model emoji --steps 12 --rounds 1 --forms "${forms[@]}" &
step memory-512 260 memory "${medium[@]}" --size "$middle" --batch 4 --steps 2 --rounds 1 &
step recompilations-512 260 recompilations "${medium[@]}" --size "$middle" --batch 16 --steps 2 &
step recompilations-1024 260 recompilations "${medium[@]}" --size "$large" --batch 8 --steps 2 --changes 20 &
step candidates-1024 260 candidates "${medium[@]}" --size "$large" --steps 20 "${eight[@]}" "${fp8[@]}" &
step candidates-512 260 candidates "${medium[@]}" --size "$middle" --candidates 32 --batch 16 --steps 20 --subset 4 \
    "${few[@]}" --compile &
step work-1024 260 work "${medium[@]}" --size "$large" --batch 8 --steps 4 "${few[@]}" --compile --matrix "$matrix" &
wait
collect
step whole-1024 190 candidates "${medium[@]}" --size "$large" --steps 20 "${eight[@]}" --whole &
step flux-512 190 candidates "${flux[@]}" --size "$middle" --steps 8 "${eight[@]}" &
[ ${#fp8[@]} = 0 ] || step flux-512-fp8 190 candidates "${flux[@]}" --size "$middle" --steps 8 "${eight[@]}" --fp8 --only float8 &
wait
collect
step flux-1024 80 candidates "${flux[@]}" --size "$large" "${four[@]}" &
step attention-1024 80 attention "${medium[@]}" --size "$large" --batch 8 --rounds 5 --compile &
step large-1024 80 candidates "${big[@]}" --size "$large" "${four[@]}" &
wait
collect
step scaling-512 80 scaling "${medium[@]}" --size "$middle" --batch 4 --steps 4 --rounds 3 --seconds 2
collect

cat "$out/benchmarks.md"
! ls "$parts"/*.failed >/dev/null 2>&1
