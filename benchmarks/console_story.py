"""From photos to what a running device knows, in a browser, with a scripted person: time and keys of each step.

    python benchmarks/console_story.py [--photos 30] [--minutes 3]

The story of tests/integration/console/test_end_to_end.py with more photos of playing cards (`../shared/data`, or
`$FINESIGHT_DATA`): upload, boxes proposed by edges and colours and corrected by keys, names, `edge-train learn`,
evaluation, a signed release, a real `edge run` with its update agent that takes it over, and a search that finds the
card.

`box_keys` and `review_keys` are all keys that were pressed; a name that is typed counts each letter. Writes
benchmarks/results/console_story.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Run the story, print what it measured, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=3.0, help="for edge-train learn")
    arguments = parser.parse_args()
    from benchmarks import rig
    from tests.console_browser import chromium
    from tests.integration.console.test_end_to_end import tell

    with tempfile.TemporaryDirectory(prefix="console-story-") as folder, chromium() as browser:
        story = tell(Path(folder), browser, arguments.photos, arguments.minutes)
    report = {"photos": arguments.photos, "minutes": arguments.minutes, **asdict(story.told)}
    rig.write_report(report, ROOT / "benchmarks/results/console_story.json")


if __name__ == "__main__":
    main()
