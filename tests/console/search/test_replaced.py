"""People search while the device takes a new bundle over."""

from __future__ import annotations

import json
import shutil
import threading

from edge.bundle.active_pointer import ActivePointer, write_active_pointer
from edge.bundle.layout import slot_folder
from edge.imaging import image
from tests.console.models.small_pair import make_device, picture
from tests.console_samples import running_console

OBJECT = image.encode_image(picture(2), ".png")
_PEOPLE = 4


def test_searches_go_on_while_the_bundle_is_replaced(tmp_path):
    state = make_device(tmp_path / "state")
    first = json.loads((state / "current").read_text())
    answers, begun, replaced = [], threading.Event(), threading.Event()

    def search_on(client) -> None:
        for number in range(8):
            if number == 3:
                replaced.wait(30)
            answers.append(client.upload("/api/v1/search", {"a.png": OBJECT}))
            begun.set()

    with running_console(tmp_path / "data", device=state) as client:
        people = [threading.Thread(target=search_on, args=(client,)) for _ in range(_PEOPLE)]
        for one in people:
            one.start()
        begun.wait(30)
        shutil.copytree(slot_folder(state, "a"), slot_folder(state, "b"))
        manifest = slot_folder(state, "b") / "bundle.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"bundle_id": "small-2"}))
        write_active_pointer(state, ActivePointer(slot="b", bundle_id="small-2", gallery=first["gallery"]))
        shutil.rmtree(slot_folder(state, "a"))
        replaced.set()
        for one in people:
            one.join()
    assert {one.status for one in answers} == {200}
    bundles = [one.json["pair"]["bundle"] for one in answers]
    assert set(bundles) == {"small-1", "small-2"}
    assert bundles.count("small-2") >= 5 * _PEOPLE - 1
    assert {one.json["objects"][0]["top"][0]["item"] for one in answers} == {"i2"}
