#!/usr/bin/env bash
# The small run of docs/training.md: trains recipes/proof.toml on a folder of audio and scores each checkpoint on another.
#
#     examples/training_proof.sh TRAIN_FOLDER DEV_FOLDER RUN
#
# Needs `codec` and `codec-train` on the path. Files of DEV_FOLDER have 16 kHz.
set -euo pipefail
train=$1 dev=$2 run=$3
recipes=$(dirname "$0")/../recipes
codec train "$recipes/proof.toml" --data "$train" --out "$run"
for checkpoint in "$run"/checkpoints/*; do
    model=$(mktemp --suffix .safetensors)
    codec export "$checkpoint" -o "$model" --force
    echo "== $checkpoint"
    codec eval -m "$model" --data "$dev" --bitrates 6 | grep -E "file|mean|interval|codebook"
    rm "$model"
done
codec report "$run" -o "$run/report.html"
