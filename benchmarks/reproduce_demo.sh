#!/usr/bin/env bash
# Rebuild everything under demo/ from this project only: render, train, quantise, pack, embed.
# Shows progress bars and resumes an interrupted run; delete runs/ to start over. It took 15 min 42 s on two cores of an
# AMD EPYC with VNNI, under other load (2026-11-27), without the finder. The shipped detector is of that run; classifier
# and embedders were trained on a CPU without VNNI on 2026-11-28, and the finder on 2026-11-29. Another CPU rounds
# differently.
# With --quick the trainings are shorter, everything is written to runs/quick/, and demo/ does not change.
set -euo pipefail
case "${1:-}" in
    "") export runs=runs quick="" ;;
    --quick) export runs=runs/quick quick=--quick ;;
    *) echo "usage: $0 [--quick]" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
scripts/setup test
bin=.venv/bin
started=$SECONDS
step() { printf '\n== %s (%d min %02d s) ==\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

step "render the training data and the stream"
[ -e runs/synthetic/index.csv ] || $bin/edge-train synthesize -o runs/synthetic --seed 1
mkdir -p demo "$runs"
[ -n "$quick" ] || $bin/edge-train synthesize --stream -o demo/stream.mp4 --seed 22

step "train the detector, the coarse classifier, the finder and the embedders, two at a time"
# Networks this small gain little from a second thread: two trainings with one thread each finish sooner.
train() {
    case "$1" in
        classifier | detector | finder) set -- "$1" -c "configs/train/demo-$1.yaml" -o "$runs/$1" ;;
        *) # an embedder, which starts from the classifier's trunk
            until [ -e "$runs/classifier/model.json" ]; do [ ! -e "$runs/failed" ] || exit 255; sleep 1; done
            set -- embedder -c configs/train/demo-embedder.yaml -o "$runs/embedders" \
                --base "$runs/classifier" --categories "$1" ;;
    esac
    .venv/bin/edge-train "$@" $quick || { touch "$runs/failed"; exit 255; } # xargs then starts no other job
}
export -f train
rm -f "$runs/failed"
printf '%s\n' classifier detector finder car bottle jar carton can |
    OMP_NUM_THREADS=1 xargs -P 2 -n 1 --process-slot-var=TQDM_POSITION bash -c 'train "$0"'

step "quantise, compare and pack"
embedders=()
for category in bottle jar carton can car; do embedders+=(--embedder "$runs/embedders/$category"); done
rm -rf "$runs/bundle" && $bin/edge-quantize pack --id "demo-1${quick/--/-}" --sequence 1 --out "$runs/bundle" \
    --detector "$runs/detector" --classifier "$runs/classifier" --finder "$runs/finder" "${embedders[@]}" \
    --index runs/synthetic/index.csv --scenes runs/synthetic/scenes.json --gallery-splits catalogue,train \
    --targets cpu,tensorrt --target-cpu any --keep-both --fallback-fp32 --work "$runs/models"
step "embed the gallery"
rm -rf "$runs/gallery" && $bin/edge-train embed --bundle "$runs/bundle" --data runs/synthetic/index.csv \
    --split catalogue,train --per-item 24 -o "$runs/gallery"

if [ -z "$quick" ]; then
    rm -rf demo/bundle demo/gallery
    cp -r runs/bundle runs/gallery demo/
fi
step "done"
du -sh "$runs/bundle" "$runs/gallery"
