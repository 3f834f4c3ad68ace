"""The permission of another fleet system for a device to take a release."""

from __future__ import annotations

import pytest

from gallery_sync.device.permit import NAME, Permit, read_permit, why_not_permitted, withdraw_permit, write_permit
from gallery_sync.transport.errors import StorageError

PERMIT = Permit(line="demo", sequence=5, by="hawkbit")


def test_permit_is_written_read_and_withdrawn(tmp_path):
    assert read_permit(tmp_path) is None
    write_permit(tmp_path, PERMIT)
    assert read_permit(tmp_path) == PERMIT
    assert not withdraw_permit(tmp_path, "mender")
    assert withdraw_permit(tmp_path, "hawkbit")
    assert not withdraw_permit(tmp_path)
    assert read_permit(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"line":"demo","sequence":0,"by":"x"}', b"\xff"])
def test_damaged_permit_permits_nothing(tmp_path, data):
    (tmp_path / NAME).write_bytes(data)
    assert read_permit(tmp_path) is None


def test_folder_in_its_place_permits_nothing_and_is_replaced(tmp_path):
    (tmp_path / NAME).mkdir()
    assert read_permit(tmp_path) is None
    write_permit(tmp_path, PERMIT)
    assert read_permit(tmp_path) == PERMIT


def test_disk_that_fails_is_an_error(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        write_permit(tmp_path / "state", PERMIT)


def test_permit_is_for_one_release_of_its_line():
    assert why_not_permitted(PERMIT, "demo", 5) is None
    assert "is for release 5 of demo, not for 6" in str(why_not_permitted(PERMIT, "demo", 6))
    assert why_not_permitted(PERMIT, "other", 5) is not None
    assert "no permit for release 5" in str(why_not_permitted(None, "demo", 5))


def test_permit_may_be_for_the_download_alone():
    prepared = PERMIT.model_copy(update={"install": False})
    assert why_not_permitted(prepared, "demo", 5, download=True) is None
    assert "not yet to install it" in str(why_not_permitted(prepared, "demo", 5))
