#!/usr/bin/env bash
# The small runs of docs/training.md: trains recipes/proof.toml and its like with discriminators on a folder of audio and
# scores each checkpoint on another.
#
#     examples/training_proof.sh TRAIN_FOLDER DEV_FOLDER RUNS
#
# Needs `codec` and `codec-train` on the path. Files of DEV_FOLDER have 16 kHz.
set -euo pipefail
train=$1 dev=$2 runs=$3
recipes=$(dirname "$0")/../recipes
model=$(mktemp --suffix .safetensors)
trap 'rm -f "$model"' EXIT
for recipe in proof proof-adversarial; do
    run=$runs/$recipe
    codec train "$recipes/$recipe.toml" --data "$train" --out "$run"
    for checkpoint in "$run"/checkpoints/*; do
        codec export "$checkpoint" -o "$model" --force
        echo "== $checkpoint"
        codec eval -m "$model" --data "$dev" --bitrates 6 | grep -E "file|mean|interval|codebook"
    done
    codec report "$run" -o "$run/report.html"
done
