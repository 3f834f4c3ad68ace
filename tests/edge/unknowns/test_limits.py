"""Which pictures of unknown objects are worth sending."""

from __future__ import annotations

import numpy as np

from edge.unknowns.limits import DAY_S, HOUR_S, Alike, fingerprint, is_over, recent

NOW = 1_700_000_000.0


def noise(seed):
    return np.random.default_rng(seed).integers(0, 255, (96, 96, 3)).astype(np.uint8)


def test_hour_and_day_are_limited():
    of_hour = [NOW - 10.0 * n for n in range(3)]
    assert is_over(of_hour, NOW, per_hour=3, per_day=100)
    assert not is_over(of_hour, NOW + HOUR_S, per_hour=3, per_day=100)
    assert is_over(of_hour, NOW + HOUR_S, per_hour=3, per_day=3)
    assert not is_over(of_hour, NOW + DAY_S, per_hour=3, per_day=3)


def test_times_after_now_do_not_count():
    """The clock was set back: a device must not stay silent until it has caught up."""
    assert recent([NOW + 1, NOW, NOW - DAY_S], NOW) == [NOW]


def test_fingerprint_survives_light_and_noise():
    picture = np.repeat(np.repeat(noise(1)[:12, :12], 8, 0), 8, 1)
    brighter = np.clip(picture.astype(int) * 1.1 + 5 + noise(2) // 40, 0, 255).astype(np.uint8)
    assert (fingerprint(picture) ^ fingerprint(brighter)).bit_count() <= 6
    assert (fingerprint(picture) ^ fingerprint(noise(3))).bit_count() > 12


def test_alike_pictures_of_one_camera_are_known_for_a_while():
    alike = Alike(60.0)
    alike.add("door", 0b1111, 0.0)
    assert alike.is_known("door", 0b0111, 59.0)
    assert alike.is_known("door", 0b1111, 118.0)  # its time started again
    assert not alike.is_known("door", 0b1111, 178.0)
    assert not alike.is_known("roof", 0b1111, 119.0)
    assert not alike.is_known("door", 0b1111_1111_1111, 119.0)


def test_folding_can_be_switched_off():
    alike = Alike(0.0)
    alike.add("door", 7, 1.0)
    assert not alike.is_known("door", 7, 1.0)
