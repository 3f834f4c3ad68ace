"""The console's whole story in a browser: photos become a recogniser, and a running device takes it over.

A scripted person uses keys, buttons and what is on the screen. Truth comes from the photos' own annotations.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
from playwright.sync_api import Page, expect

from edge.types import Box
from tests.console_samples import Client
from tests.waiting import until

CATEGORY = "card"
NEAR_PX = 4.0  # of an edge of a box that needs no more keys
SAME = 0.3  # overlap from which a proposal is about the object
LONG_MS = 600_000.0


@dataclass(frozen=True)
class Photo:
    """One photo and what it shows."""

    path: Path
    objects: tuple[tuple[str, Box], ...]  # name and box in pixels


@dataclass
class Told:
    """What the story measured."""

    proposed: int = 0
    box_keys: int = 0
    boxes: int = 0
    review_keys: int = 0
    crops: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    found: str = ""


def read_photos(folder: Path, count: int) -> list[Photo]:
    """Read some photos of a folder of Pascal VOC, from the whole of it."""
    photos = []
    listed = sorted(folder.glob("*.xml"))
    for file in listed[:: max(1, len(listed) // count)][:count]:
        objects = []
        for one in ET.parse(file).iter("object"):
            box = one.find("bndbox")
            sides = (float(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax"))
            objects.append((f"Card {one.findtext('name')}", tuple(sides)))
        photos.append(Photo(next(file.parent.glob(f"{file.stem}.[jJ][pP][gG]")), tuple(objects)))
    return photos


class Story:
    """One person before one console."""

    def __init__(self, page: Page, client: Client, photos: Sequence[Photo]) -> None:
        self.page, self.client, self.photos, self.told = page, client, photos, Told()
        self.truth = {photo.path.name: photo.objects for photo in photos}
        self.set_id = 0
        self._began = time.monotonic()

    def lap(self, step: str) -> None:
        """Keep how long a step took."""
        now = time.monotonic()
        self.told.seconds[step], self._began = round(now - self._began, 1), now

    def open(self, path: str) -> None:
        self.page.goto(f"{self.client.url}{path}")

    def press(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            self.page.keyboard.press(key)

    def upload(self, name: str) -> None:
        """Make a set of scenes, and upload all photos."""
        self.open("/sets")
        self.page.locator("[data-opens=new-set]").first.click()
        form = self.page.locator("#new-set-form")
        form.get_by_label("Name", exact=True).fill(name)
        form.get_by_text("A scene: boxes").click()
        form.get_by_label("Category of all objects").fill(CATEGORY)
        form.get_by_role("button", name="Make it").click()
        self.page.wait_for_url("**/sets/*")
        self.set_id = int(self.page.url.partition("/sets/")[2].partition("?")[0])
        self.page.set_input_files("#files", [photo.path for photo in self.photos])
        expect(self.page.locator("#pictures li")).to_have_count(len(self.photos), timeout=90_000)
        self.lap("upload")

    def propose_boxes(self) -> None:
        """Have boxes proposed by edges and colours."""
        self.open(f"/boxes/{self.set_id}")
        self.page.locator("[data-opens=propose]").click()
        self.page.locator("#propose").get_by_role("button", name="Propose", exact=True).click()
        expect(self.page.locator("#boxes-work .badge.good")).to_be_visible(timeout=LONG_MS)
        self.lap("propose boxes")

    def correct_boxes(self) -> None:
        """Move, resize, delete and add boxes by the keyboard, until each object has its own."""
        self.open(f"/boxes/{self.set_id}")
        for _ in self.photos:
            expect(self.page.locator("#boxes-state")).to_have_text("proposed")
            before = self.page.locator("#boxes-name").inner_text()
            self._correct_picture(before)
            self._key("s")
            expect(self.page.locator("#boxes-name")).not_to_have_text(before)
        self.lap("correct boxes")

    def _correct_picture(self, name: str) -> None:
        wanted = [box for _, box in self.truth[name]]
        self.page.locator("#boxes-svg").focus()
        self._key("Tab")
        shown = self._shown()
        for number, box in enumerate(shown, start=1):
            self.told.proposed += 1
            best = max(wanted, key=lambda one: overlap(one, box), default=None)
            if best is None or overlap(best, box) < SAME:
                self._key("Delete")
                continue
            wanted.remove(best)
            self._fit(best)
            if number < len(shown):
                self._key("Tab")
        for box in wanted:
            self._key("n")
            self._fit(box)
        self.told.boxes += len(self.truth[name])

    def _shown(self) -> list[Box]:
        labels = self.page.locator("#boxes-svg [aria-label^='Box ']").evaluate_all(
            "all => all.map((one) => one.getAttribute('aria-label'))"
        )
        return [place(label) for label in labels]

    def _fit(self, wanted: Box) -> None:
        """Bring the edges of the box in focus near to where they should be."""
        for modifier, first, keys in (("Alt", 0, ("ArrowLeft", "ArrowUp")), ("Shift", 2, ("ArrowRight", "ArrowDown"))):
            back = {
                "ArrowLeft": "ArrowRight",
                "ArrowUp": "ArrowDown",
                "ArrowRight": "ArrowLeft",
                "ArrowDown": "ArrowUp",
            }
            for axis in (0, 1):
                box = place(self.page.evaluate("document.activeElement.getAttribute('aria-label')"))
                away = wanted[first + axis] - box[first + axis]
                outward = away < 0 if first == 0 else away > 0
                key = keys[axis] if outward else back[keys[axis]]
                tens, ones = divmod(round(abs(away)), 10)
                if ones > NEAR_PX:
                    tens += 1
                self._key(f"Control+{modifier}+{key}", tens)

    def _key(self, key: str, times: int = 1) -> None:
        self.told.box_keys += times
        self.press(key, times)

    def review(self) -> None:
        """Name every object: a digit where it is proposed, else the dialog."""
        self.open(f"/review/{self.set_id}")
        listed = f"/api/v1/review/{self.set_id}/progress"
        until(lambda: self.get(listed)["unseen"] == 0, "all crops have proposals", 180.0)
        self.open(f"/review/{self.set_id}")
        self.told.crops = sum(len(photo.objects) for photo in self.photos)
        expect(self.page.locator("#grid [aria-current=true]")).to_be_visible()
        while (crop_id := until(lambda: self._current() or self._is_reviewed(), "a crop is shown")) is not True:
            name = self._name_of(crop_id)
            shown = self.page.locator("#proposals strong").all_inner_texts()
            labels = [text.strip().partition(" ")[2] for text in shown]  # after the key
            if name in labels[:3]:
                self._review_key(str(labels.index(name) + 1))
            else:
                self._review_key("n")
                self.page.locator("#naming-label").fill(name)
                self.told.review_keys += len(name)
                self._review_key("Enter")
            until(lambda was=crop_id: self._current() != was, "the next crop comes")
        expect(self.page.locator("#saved")).to_have_text("all saved")
        with self.client.services.database.read() as rows:
            named = rows.execute("SELECT DISTINCT category FROM crops WHERE state = 'item'").fetchall()
        assert [row[0] for row in named] == [CATEGORY]
        self.lap("review")

    def _is_reviewed(self) -> bool:
        return self.get(f"/api/v1/review/{self.set_id}/progress")["open"] == 0

    def _current(self) -> int | None:
        found = self.page.locator("#grid [aria-current=true]")
        if self.page.locator("#nothing").is_visible() or not found.count():
            return None
        if found.get_attribute("data-state") not in (None, "open"):
            return None
        return int(found.get_attribute("data-id"))

    def _name_of(self, crop_id: int) -> str:
        with self.client.services.database.read() as rows:
            row = rows.execute(
                "SELECT name, x0, y0, x1, y1 FROM crops JOIN pictures ON pictures.id = picture_id WHERE crops.id = ?",
                (crop_id,),
            ).fetchone()
        return max(self.truth[row["name"]], key=lambda one: overlap(one[1], tuple(row)[1:]))[0]

    def _review_key(self, key: str) -> None:
        self.told.review_keys += 1
        self.press(key)

    def train(self, name: str, minutes: float) -> int:
        """Learn from the set; return the job."""
        self.open(f"/training/new?set={self.set_id}")
        form = self.page.locator("form[hx-post='/api/v1/training/learn']")
        form.get_by_label("Name").fill(name)
        form.get_by_label("Minutes").fill(str(minutes))
        form.get_by_role("button", name="Learn").click()
        self.page.wait_for_url("**/training/jobs/*")
        job = self.finished()
        self.lap("train")
        return job

    def evaluate(self, job: int) -> None:
        """Look at the numbers, and at every answer."""
        self.open(f"/training/jobs/{job}/result")
        expect(self.page.get_by_role("heading", name="On pictures that it had not seen")).to_be_visible()
        self.lap("evaluate")

    def publish(self, job: int) -> None:
        """Publish the pair of a job."""
        self.open(f"/training/jobs/{job}")
        self.page.locator("[data-opens=publish]").click()
        self.page.locator("#publish").get_by_role("button", name="Publish", exact=True).click()
        self.page.wait_for_url(lambda url: "/training/jobs/" in url and not url.endswith(f"/{job}"))
        self.finished()
        self.lap("publish")

    def search(self, picture: Path) -> str:
        """Search with the device's models; return the nearest item."""
        self.open("/search")
        self.page.set_input_files("#file", picture)
        first = self.page.locator("#objects .near a").first
        expect(first).to_be_visible(timeout=60_000)
        self.lap("search")
        return first.inner_text()

    def finished(self) -> int:
        """Wait on a job's page for it to end well; return the job."""
        job = int(self.page.url.rpartition("/")[2])
        ended = re.compile("done|failed|stopped|interrupted")
        expect(self.page.locator("#job")).to_have_attribute("data-state", ended, timeout=LONG_MS)
        assert self.get(f"/api/v1/jobs/{job}")["state"] == "done", self.client.services.jobs.log_tail(job)
        return job

    def get(self, path: str) -> Any:
        reply = self.client.get(path)
        assert reply.status == 200, reply.text
        return reply.json


def place(label: str) -> Box:
    """Return the box that a label of the editor says."""
    left, top, size = label.rpartition(": ")[2].split(", ")
    width, _, height = size.partition(" by ")
    x, y = float(left.split()[1]), float(top.split()[1])
    return x, y, x + float(width), y + float(height.split()[0])


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def cut(photo: Photo, number: int, file: Path) -> str:
    """Write one object of a photo as a picture of its own, and return its name."""
    name, box = photo.objects[number]
    x0, y0, x1, y1 = map(int, box)
    cv2.imwrite(str(file), cv2.imread(str(photo.path))[y0:y1, x0:x1])
    return name
