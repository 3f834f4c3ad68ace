"""Numbers of reports never repeat, whatever happens to their file."""

from __future__ import annotations

import pytest

from gallery_sync.mailbox.numbers import NAME, Numbers
from tests.file_damage import DAMAGES


def numbers(folder, identity="cam-1 shop"):
    return Numbers(folder, identity)


def test_numbers_go_on_after_a_restart(tmp_path):
    first = numbers(tmp_path)
    epoch, _ = first.next_report()
    assert first.next_report() == (epoch, 2)
    assert numbers(tmp_path).next_report() == (epoch, 3)


def test_number_is_on_the_disk_before_its_report_leaves(tmp_path):
    numbers(tmp_path).next_report()
    killed = numbers(tmp_path)
    taken = killed.next_report()
    assert numbers(tmp_path).next_report() != taken


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_numbers_begin_another_epoch(tmp_path, damage):
    before = numbers(tmp_path).next_report()
    damage(tmp_path / NAME)
    after = numbers(tmp_path).next_report()
    assert after[0] != before[0]
    assert numbers(tmp_path).next_report() == (after[0], after[1] + 1)


def test_another_identity_begins_another_epoch(tmp_path):
    first = numbers(tmp_path)
    first.note_doorbell(9)
    other = numbers(tmp_path, "cam-2 shop")
    assert other.rang == 0
    assert other.next_report()[0] != first.next_report()[0]


def test_full_disk_costs_the_epoch_and_never_repeats_a_number(tmp_path):
    folder = tmp_path / "state"
    kept = numbers(folder)
    seen = [kept.next_report()]
    folder.rename(tmp_path / "away")
    folder.write_text("a file where the folder was")
    seen += [kept.next_report(), kept.next_report()]
    folder.unlink()
    (tmp_path / "away").rename(folder)
    seen += [numbers(folder).next_report(), kept.next_report(), kept.next_report()]
    assert len(set(seen)) == len(seen)
    assert kept.failed == 2


@pytest.mark.parametrize("revision", ["9007199254740991", "0", "-1"])
def test_numbers_without_their_hash_are_not_believed(tmp_path, revision):
    (tmp_path / NAME).write_text(f'{{"identity": "cam-1 shop", "epoch": "12345678", "revision": {revision}}}')
    epoch, number = numbers(tmp_path).next_report()
    assert (epoch != "12345678", number) == (True, 1)
