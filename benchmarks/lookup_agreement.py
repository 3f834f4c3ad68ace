"""Look-ups of JPEGs decoded as small as the models allow, against the same JPEGs at full size: do the answers agree?

    python benchmarks/lookup_agreement.py

Pictures of a phone's size: the demo's golden probes, objects cut out of its stream, and shop photos, which the demo
does not know (only with $FINESIGHT_DATA or ../shared/data), enlarged to 1600 pixels with the noise of a camera. As a
scale, the same comparison without the first row and column of pixels. Writes benchmarks/results/lookup_agreement.json.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
LONGEST_PX, NOISE, PHOTOS, FRAMES = 1600, 4.0, 150, 20
MIN_OBJECT_PX = 24


def main() -> None:
    """Compare the answers and write the report."""
    from benchmarks import rig
    from edge.build import load_models
    from edge.config.schema import EngineConfig
    from edge.imaging.image import encode_image
    from edge.imaging.jpeg_decode import FULL_SIZE, DecodedPicture
    from edge.recognition.recognise_image import decode_upload, recognise_picture, reduction_for
    from edge.telemetry.timing import Timings

    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    models = load_models(rig.DEMO / "bundle", rig.DEMO / "gallery", EngineConfig())
    report: dict[str, Any] = {"longest side": LONGEST_PX}
    for kind, pictures in pictures_of(models).items():
        found = []
        for picture in pictures:
            data = encode_image(picture, ".jpg")
            full, reduced = decode_upload(data, FULL_SIZE), decode_upload(data, reduction_for(models))
            cut = DecodedPicture(full.image_rgb[1:, 1:].copy(), full.width - 1, full.height - 1)
            answers = [recognise_picture(models, one, MIN_OBJECT_PX, Timings()) for one in (full, reduced, cut)]
            found.append((answers, full.width / reduced.image_rgb.shape[1]))
        report[kind] = {
            "pictures": len(found),
            "decoded smaller by": sorted({round(factor) for _, factor in found}),
            "reduced": agreement([(answers[0], answers[1]) for answers, _ in found]),
            "one pixel less": agreement([(answers[0], answers[2]) for answers, _ in found]),
        }
    rig.write_report(report, ROOT / "benchmarks/results/lookup_agreement.json")


def agreement(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Return in how many pairs of decisions the answer and the nearest item agree, and how far the scores differ."""
    answers = nearest = 0
    differences = []
    for one, other in pairs:
        answers += (one.match and one.match.item_id, one.reason) == (other.match and other.match.item_id, other.reason)
        nearest += [hit.item_id for hit in one.top[:1]] == [hit.item_id for hit in other.top[:1]]
        scores = {hit.item_id: hit.score for hit in other.top}
        differences += [abs(hit.score - scores[hit.item_id]) for hit in one.top[:1] if hit.item_id in scores]
    differences.sort()
    return {
        "same answer": answers,
        "same nearest item": nearest,
        "median difference of its score": round(float(differences[len(differences) // 2]), 4),
        "largest": round(float(differences[-1]), 4),
    }


def pictures_of(models: Any) -> dict[str, list[Any]]:
    """Return pictures of a phone's size, by kind."""
    import numpy as np

    from benchmarks import rig
    from edge.capture.open_source import open_source
    from edge.config.camera_url import parse_source
    from edge.imaging import image
    from edge.telemetry.timing import Timings

    rng = np.random.default_rng(0)

    def as_photo(picture: Any) -> Any:
        scale = LONGEST_PX / max(picture.shape[:2])
        larger = image.resize(picture, round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        return np.clip(larger + rng.normal(0, NOISE, larger.shape), 0, 255).astype(np.uint8)

    kinds: dict[str, list[Any]] = {"golden probes": [], "objects of the stream": []}
    for path in sorted((rig.DEMO / "bundle/probes").glob("*.png")):
        kinds["golden probes"].append(as_photo(image.read_image(path)))
    source = open_source(parse_source(f"file://{rig.DEMO / 'stream.mp4'}"))
    for number in range(3 * FRAMES):
        frame = source.read(5.0).image_rgb
        if number % 3 == 0 and models.stages.detector is not None:
            for detection in models.stages.detector.detect([frame], Timings())[0]:
                kinds["objects of the stream"].append(as_photo(image.crop(frame, detection.box_px, 0.1)))
    data = Path(os.environ.get("FINESIGHT_DATA", ROOT.parent / "shared/data"))
    photos = sorted((data / "grocery").rglob("*.jpg"))
    if photos:
        chosen = random.Random(0).sample(photos, min(PHOTOS, len(photos)))
        kinds["shop photos"] = [as_photo(image.read_image(path)) for path in chosen]
    return kinds


if __name__ == "__main__":
    main()
