"""The speed of the identity review: keys for a crop, crops a minute that the console can serve, time of large pages.

    python benchmarks/console_review.py            # all, on the demo's video, with the shipped bundle and gallery
    python benchmarks/console_review.py --every 15 # takes every 15th frame (default: 5)

A scripted reviewer sends what the keys of the page send, one request for a batch of eight decisions. It knows the truth
of the video (demo/stream.json), looks at the three proposals, and takes the fewest keys that do it: 1 to 3 where the
truth is proposed; else N, a beginning of the label or of its initials, arrows down to the item, and Enter. By default
one decision stands for folded near-duplicates, as on the page. `from nothing` takes the gallery away: only what was
decided before proposes, as with a category that no bundle knows, and each item's label is typed once. Crops a minute
include the look-ups in which the reviewer finds the fewest keys, several for each name: the console serves more.

The pages are measured over HTTP with made-up rows: 50,000 crops in 50,000 pictures, 20,000 of them decided as 2,000
items, vectors of 128 numbers.

Prints Markdown, and writes benchmarks/results/console_review.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cv2
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from console.models.models import Models  # noqa: E402  the checkout comes first
from console.review.review import Review  # noqa: E402
from console.sets.crops import NewBox, set_boxes  # noqa: E402
from console.sets.pictures import add_picture  # noqa: E402
from console.sets.sets import create_set  # noqa: E402
from console.settings import Settings  # noqa: E402
from console.web.serve import ConsoleServer, Listen, close_services, open_services  # noqa: E402
from edge.errors import ConsoleError  # noqa: E402
from edge.imaging.image import encode_image  # noqa: E402
from edge.shipped.examples import shipped  # noqa: E402
from tests.console_samples import TOKEN, Client  # noqa: E402

RESULT = ROOT / "benchmarks/results/console_review.json"
BATCH = 8  # decisions in one request: what a quick reviewer collects while one is under way
DEADLINE_S = 900.0
Truth = dict[int, tuple[str, str, str]]  # category, item and label of each crop


def demo_set(client: Client, folder: Path, name: str, every: int, visible: float = 0.0) -> tuple[int, Truth]:
    """Make a set of the frames of the demo's video with their true boxes; return its id, and what each crop is."""
    told = json.loads((shipped("demo") / "stream.json").read_text())
    objects = {one["object_id"]: (one["category"], one["item_id"], one["label"]) for one in told["objects"]}
    folder.mkdir(parents=True, exist_ok=True)
    truth: Truth = {}
    services = client.services
    with services.database.write() as connection:
        set_id = create_set(connection, services.clock(), "benchmark", name, "folder", folder)
    video = cv2.VideoCapture(str(shipped("demo") / "stream.mp4"))
    for number, boxes in enumerate(told["frames"]):
        is_read, frame_bgr = video.read()
        seen = [one for one in boxes if one["visible_fraction"] >= visible]
        if number % every or not seen or not is_read:
            continue
        path = folder / f"frame-{number:04}.jpg"
        path.write_bytes(encode_image(np.ascontiguousarray(frame_bgr[..., ::-1]), ".jpg", 92))
        with services.database.write() as connection:
            picture = add_picture(connection, services.clock(), set_id, path.name, path, whole=False)
            new = [NewBox(None, tuple(one["box_px"])) for one in seen]
            set_boxes(connection, picture or 0, 1, new, "confirmed")
            rows = connection.execute("SELECT id FROM crops WHERE picture_id = ? ORDER BY id", (picture,))
            truth |= {row[0]: objects[one["object_id"]] for row, one in zip(rows, seen, strict=True)}
    video.release()
    return set_id, truth


def propose(client: Client, set_id: int) -> float:
    """Fill the proposals of a set; return the seconds that it took."""
    started = time.perf_counter()
    task = client.send("POST", f"/api/v1/review/{set_id}/propose", {}).json
    ended = client.services.tasks.wait(task["key"], DEADLINE_S)
    if ended is None or ended.state != "done":
        sys.exit(f"proposing failed: {ended}")
    return time.perf_counter() - started


class WithoutGallery:
    """Models that see, and know no item."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def look(self, image_rgb: Any, choice_id: str = "", category: str | None = None) -> Any:
        """Return what the models see, without the gallery's items."""
        return replace(self._models.look(image_rgb, choice_id, category), hits={})

    def choice(self, choice_id: str = "") -> Any:
        """Refuse: there is no gallery."""
        raise ConsoleError("missing", f"no gallery {choice_id}")


@contextmanager
def console(folder: Path, *, gallery: bool = True) -> Iterator[Client]:
    """Run a console with the demo's models, or without their gallery."""
    services = open_services(Settings(folder, is_demo=True), TOKEN)
    if not gallery:
        models: Any = WithoutGallery(services.models)
        services = replace(services, review=Review(services.database, models, services.tasks))
    try:
        with ConsoleServer(services, Listen(port=0)) as server:
            yield Client(server.url, services)
    finally:
        close_services(services)


class Reviewer:
    """Presses the keys that a person who knows the truth would press, and sends what the page would send."""

    def __init__(self, client: Client, set_id: int, truth: Truth) -> None:
        self._client, self._path, self._truth = client, f"/api/v1/review/{set_id}", truth
        self.keys = self.decisions = self.wrong = self.requests = 0
        self._proposals: dict[int, list[dict[str, Any]]] = {}

    def review(self, order: str) -> float:
        """Decide all crops; return the seconds that it took, of which the reviewer itself takes next to none."""
        started = time.perf_counter()
        while crops := self._client.get(f"{self._path}/crops?limit=60&order={order}").json["crops"]:
            self.requests += 1
            self._proposals = {one["id"]: one["proposals"] for one in crops}
            for start in range(0, len(crops), BATCH):
                self._send(crops[start : start + BATCH], [one["id"] for one in crops[start + BATCH :]][:40])
        return time.perf_counter() - started

    def _send(self, crops: Sequence[dict[str, Any]], shown: list[int]) -> None:
        decisions = []
        for crop in crops:
            category, item, label = self._truth[crop["id"]]
            known = [(one["category"], one["item"]) for one in self._proposals[crop["id"]]]
            new = {"id": f"b-{crop['id']}", "crops": [{"id": crop["id"], "version": crop["version"]}], "state": "item"}
            decisions.append(new | {"category": category, "item": item, "label": label})
            self.keys += 1 if (category, item) in known else self._keys_to_name(crop["id"], category, item, label)
        answer = self._client.send("POST", f"{self._path}/decisions", {"decisions": decisions, "shown": shown}).json
        self.requests += 1
        self.decisions += len(decisions)
        self._proposals |= {int(key): found for key, found in answer["proposals"].items()}

    def _keys_to_name(self, crop: int, category: str, item: str, label: str) -> int:
        """Return the fewest keys that name an item: N, some text or arrows, Enter; the category is there already."""
        fewest = len(label) + 2  # as a new item
        initials = "".join(word[0] for word in label.split())
        for text in [
            "",
            *(label[:k] for k in range(1, len(label))),
            *(initials[:k] for k in range(2, len(initials) + 1)),
        ]:
            if len(text) + 2 >= fewest:
                continue
            query = urlencode({"text": text.lower(), "crop": crop, "limit": 8})
            found = self._client.get(f"{self._path}/items?{query}").json["items"]
            places = [k for k, one in enumerate(found) if (one["category"], one["item"]) == (category, item)]
            is_marked = not text or self._is_meant(text, found)
            if places and is_marked:
                fewest = min(fewest, len(text) + 2 + places[0])  # arrows down to it
        return fewest

    @staticmethod
    def _is_meant(text: str, found: Sequence[dict[str, Any]]) -> bool:
        """Return whether the page marks the first of what was found, and not the new item."""
        label = found[0]["label"].lower() if found else ""
        return label.startswith(text.lower()) or "".join(w[0] for w in label.split()).startswith(text.lower())


def measure_reviewer(
    folder: Path, every: int, *, gallery: bool = True, fold: bool = True, order: str = "doubt", visible: float = 0.0
) -> dict[str, Any]:
    """Review the demo's video; return keys for a crop, and how fast the console served it."""
    with console(folder / "data", gallery=gallery) as client:
        set_id, truth = demo_set(client, folder / "pictures", "demo", every, visible)
        looked_s = propose(client, set_id)
        with client.services.database.write() as connection:
            if not fold:
                connection.execute("UPDATE crops SET fold = NULL WHERE set_id = ?", (set_id,))
        reviewer = Reviewer(client, set_id, truth)
        took_s = reviewer.review(order)
        with client.services.database.read() as rows:
            stored = rows.execute("SELECT id, category, item FROM crops WHERE state = 'item'").fetchall()
        wrong = sum(truth[row["id"]][:2] != (row["category"], row["item"]) for row in stored)
    return {
        "crops": len(truth), "named": len(stored), "wrong": wrong, "decisions": reviewer.decisions,
        "keys": reviewer.keys, "keys_per_crop": round(reviewer.keys / len(truth), 3),
        "keys_per_decision": round(reviewer.keys / reviewer.decisions, 3),
        "crops_per_minute_served": round(60 * len(truth) / took_s),
        "decisions_per_minute_served": round(60 * reviewer.decisions / took_s),
        "looked_at_per_s": round(len(truth) / looked_s, 1),
    }  # fmt: skip


CROPS, ITEMS, DECIDED, DIM = 50_000, 2_000, 20_000, 128


def made_up_rows(client: Client) -> int:
    """Fill a set with made-up crops of made-up pictures; return its id."""
    rng = np.random.default_rng(5)
    items = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    of = rng.integers(0, ITEMS, CROPS)
    vectors = items[of] + rng.normal(scale=0.7, size=(CROPS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with client.services.database.write() as connection:
        set_id = create_set(connection, 0.0, "benchmark", "made up", "folder", Path("/nowhere"))
        connection.executemany(
            "INSERT INTO pictures(id, set_id, name, sha256, size, width, height, boxes, added_at) "
            "VALUES (?, ?, ?, ?, 1, 640, 480, 'confirmed', 0)",
            [(one + 1, set_id, f"camera/{one:06}.jpg", f"{one:064x}") for one in range(CROPS)],
        )
        for one in range(CROPS):
            item, similarity = int(of[one]), float(rng.uniform(0.2, 1.0))
            hits = json.dumps(
                [{"category": "thing", "item": f"item-{(item + k) % ITEMS}", "label": f"Thing {(item + k) % ITEMS}",
                  "similarity": similarity - 0.1 * k} for k in range(3)]
            )  # fmt: skip
            named = ("item", "thing", f"item-{item}", f"Thing {item}") if one < DECIDED else ("open", None, None, None)
            connection.execute(
                "INSERT INTO crops(id, set_id, picture_id, x0, y0, x1, y1, box_source, state, category, item, label, "
                "proposals, similarity, doubt, vector, space) VALUES (?, ?, ?, 0, 0, 90, 90, 'human', ?, ?, ?, ?, ?, "
                "?, ?, ?, 'made-up')",
                (one + 1, set_id, one + 1, *named, hits, similarity, 1 - similarity, vectors[one].tobytes()),
            )
            connection.execute(
                "INSERT INTO review_marks(crop_id, hash, hits, margin) VALUES (?, ?, ?, 0.1)",
                (one + 1, f"{one:016x}", hits),
            )
    return set_id


def measure_pages(folder: Path, repeats: int = 9) -> dict[str, Any]:
    """Return the median milliseconds of requests on made-up rows, over HTTP, and the slowest of the first ones."""
    with console(folder / "data") as client:
        set_id = made_up_rows(client)
        api = f"/api/v1/review/{set_id}"
        deep = "&after=0.4,40000"
        paths = {
            "list of sets": "/review",
            "page of the set": f"/review/{set_id}",
            "60 crops, worst first": f"{api}/crops?limit=60",
            "60 crops, far down": f"{api}/crops?limit=60{deep}",
            "60 crops, surest first": f"{api}/crops?limit=60&order=sure",
            "60 crops of all states": f"{api}/crops?limit=60&state=open&state=item&state=unknown&state=nothing",
            "60 crops by a text that few have": f"{api}/crops?limit=60&text=049999",
            "60 crops of one item": f"{api}/crops?limit=60&item=item-7",
            "pictures in reading order": f"{api}/crops?order=picture&after=30000,0",
            "cells of accept all above": f"{api}/cells",
            "items by a text": f"{api}/items?text=thing%20199",
            "look-alikes": f"{api}/alike?category=thing&item=item-7",
            "log": f"/review/{set_id}/log",
        }
        result: dict[str, Any] = {name: _timed(client, path, repeats) for name, path in paths.items()}
        crops = client.get(f"{api}/crops?limit=120").json["crops"]
        taken = []
        for number in range(repeats):
            seen = crops[8 * number : 8 * number + 8]
            decisions = [
                {"id": f"p-{one['id']}", "crops": [{"id": one["id"], "version": one["version"]}], "state": "item",
                 "category": "thing", "item": "item-1", "label": "Thing 1"} for one in seen
            ]  # fmt: skip
            shown = [one["id"] for one in crops[80:120]]
            started = time.perf_counter()
            client.send("POST", f"{api}/decisions", {"decisions": decisions, "shown": shown})
            taken.append(1000 * (time.perf_counter() - started))
            client.services.tasks.wait(f"rank/{set_id}", 600.0)
        result["8 decisions stored, 40 crops proposed for"] = {"median_ms": round(statistics.median(taken), 1)}
    return result


def _timed(client: Client, path: str, repeats: int) -> dict[str, float]:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        reply = client.get(path)
        taken.append(1000 * (time.perf_counter() - started))
        if reply.status != 200:
            sys.exit(f"{path}: {reply.status} {reply.text[:300]}")
    return {"first_ms": round(taken[0], 1), "median_ms": round(statistics.median(taken), 1)}


RUNS: dict[str, dict[str, Any]] = {
    "worst first": {},
    "surest first": {"order": "sure"},
    "worst first, every crop by itself": {"fold": False},
    "surest first, every crop by itself": {"order": "sure", "fold": False},
    "worst first, half visible or more": {"visible": 0.5},
    "worst first, half visible or more, every crop by itself": {"visible": 0.5, "fold": False},
    "from nothing, surest first, half visible or more": {"gallery": False, "visible": 0.5, "order": "sure"},
}


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=5, help="take every n-th frame (default: 5)")
    parser.add_argument("--no-pages", action="store_true", help="leave out the pages with made-up rows")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "date": time.strftime("%Y-%m-%d")}
    result |= {"every": arguments.every, "reviewer": {}}
    print("| reviewer | crops | decisions | keys | keys a crop | keys a decision | crops a minute served | wrong |")
    print("|---|---|---|---|---|---|---|---|")
    for name, how in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = measure_reviewer(Path(folder), arguments.every, **how)
        result["reviewer"][name] = found
        columns = (
            "crops",
            "decisions",
            "keys",
            "keys_per_crop",
            "keys_per_decision",
            "crops_per_minute_served",
            "wrong",
        )
        print(f"| {name} | {' | '.join(str(found[one]) for one in columns)} |", flush=True)
    if not arguments.no_pages:
        with tempfile.TemporaryDirectory() as folder:
            result["pages_ms"] = measure_pages(Path(folder))
        print(f"\n| request, {CROPS:,} crops | first, ms | median, ms |\n|---|---|---|")
        for name, taken in result["pages_ms"].items():
            print(f"| {name} | {taken.get('first_ms', '')} | {taken['median_ms']} |")
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
