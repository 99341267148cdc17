#!/usr/bin/env bash
# The whole training on one GPU, in one call, on a machine that needs no network.
#
#   bash tools/emoji/gpu.sh pack FOLDER               with a network: the icon sets and the wheels that are often missing
#   bash tools/emoji/gpu.sh wheels FOLDER [MORE]      the wheels alone, and MORE requirements
#   bash tools/emoji/gpu.sh train FOLDER OUT [ARGS]   on the GPU: train, draw a sheet; results and logs go to OUT
#
# ARGS are options of `python -m tools.emoji`. Running `train` again goes on from the last checkpoint in build/gpu.
# OUT gets model.tar.part-*, to be joined with `cat model.tar.part-* | tar x`, sheet.png and train.log.
set -euo pipefail
cd "$(dirname "$0")/../.."
task=${1:?pack, wheels or train}
folder=${2:?a folder}

pack() {
    mkdir -p "$folder"
    (cd tools/emoji && npm ci --ignore-scripts >&2 && tar cJf - node_modules) >"$folder/icons.tar.xz"
    wheels
}

wheels() {
    mkdir -p "$folder"
    python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$folder" 'diffusers>=0.42,<0.43' 'jsonargparse>=4.40' docstring-parser typeshed-client \
        importlib-resources 'resvg-py>=0.5' "${@:3}"
}

train() {
    local out=${3:?a folder for the results}
    mkdir -p "$out"
    if ls "$folder"/*.whl >/dev/null 2>&1; then
        python3 -m pip install --quiet --no-index --no-deps --target build/gpu-packages --upgrade "$folder"/*.whl
    fi
    export PYTHONPATH="build/gpu-packages:.:rewards:studies" PYTHONUNBUFFERED=1
    [ -d tools/emoji/node_modules ] || tar xJf "$folder/icons.tar.xz" -C tools/emoji
    {
        nvidia-smi -L || echo "no NVIDIA GPU"
        date
        python3 -m tools.emoji --build.folder build/gpu --build.model build/gpu/model --build.images_seen 1000000 \
            --build.autoencoder_images 100000 --build.scorer_images 1000000 --build.precision bf16-mixed "${@:4}"
        date
        python3 -m tools.emoji.sheet --model build/gpu/model --out "$out/sheet.png"
    } 2>&1 | tee "$out/train.log"
    tar cf - -C build/gpu model | split --bytes=15m - "$out/model.tar.part-"
}

"$task" "$@"
