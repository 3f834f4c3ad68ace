"""The memory of the machine and of the heap, from files of the kernel and from the C library."""

import ctypes

import pytest

from edge.engine_store.process_memory import default_budget_bytes, heap_bytes, release_heap, usable_bytes

MIB = 2**20
MEMINFO = "MemTotal:        4096000 kB\nMemFree:          100000 kB\n"


def usable(tmp_path, meminfo=MEMINFO, own="0::/system.slice/edge.service\n", **limits) -> int | None:
    """Memory by a made-up /proc and /sys; limits by folder of the control group, `__` for a slash."""
    (tmp_path / "meminfo").write_text(meminfo)
    (tmp_path / "cgroup").write_text(own)
    for name, (file, text) in limits.items():
        folder = tmp_path / "fs" / name.replace("__", "/").strip("_")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    return usable_bytes(tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "fs")


def test_machine_without_limits(tmp_path):
    assert usable(tmp_path) == 4096000 * 1024


@pytest.mark.parametrize("file", ["memory.max", "memory.high"])
def test_limit_of_the_service_or_of_a_group_above_it(tmp_path, file):
    assert usable(tmp_path, **{"system.slice__edge.service": (file, "1000000\n")}) == 1000000
    assert usable(tmp_path, **{"system.slice": (file, "900000\n")}) == 900000
    assert usable(tmp_path, _=(file, "800000\n")) == 800000  # of a container, which sees itself as the root


@pytest.mark.parametrize("text", ["max\n", "", "twelve\n"])
def test_group_without_a_limit(tmp_path, text):
    assert usable(tmp_path, **{"system.slice__edge.service": ("memory.max", text)}) == 4096000 * 1024


def test_other_groups_do_not_count(tmp_path):
    assert usable(tmp_path, own="12:memory:/old\n0::/a\n", b=("memory.max", "5\n")) == 4096000 * 1024


@pytest.mark.parametrize("meminfo", ["", "MemTotal:\n", "nothing\n", "MemTotal: many kB\n"])
def test_system_that_does_not_tell(tmp_path, meminfo):
    assert usable(tmp_path, meminfo) is None
    assert usable_bytes(tmp_path / "missing") is None


def test_heap_grows_with_what_is_allocated_and_shrinks_when_it_is_freed():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    before = heap_bytes()
    if before is None:
        pytest.skip("this C library does not tell")
    small, large = [libc.malloc(10_000) for _ in range(100)], libc.malloc(64 * MIB)
    assert heap_bytes() - before == pytest.approx(65 * MIB, rel=0.05)
    for pointer in (*small, large):
        libc.free(pointer)
    release_heap()
    assert abs(heap_bytes() - before) < MIB


def test_default_budget_is_a_quarter():
    assert default_budget_bytes() == usable_bytes() // 4
