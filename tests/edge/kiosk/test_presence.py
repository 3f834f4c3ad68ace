"""Telling something on a kiosk's counter from the empty counter."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.kiosk.presence import ABSORB_S, LEARN_S, PresenceDetector

HEIGHT, WIDTH = 144, 192
RNG = np.random.default_rng(0)
NOISE = [RNG.normal(0, 1, (HEIGHT, WIDTH, 3)).astype(np.float32) for _ in range(5)]
PLAIN = np.full((HEIGHT, WIDTH, 3), 140.0) * np.linspace(0.85, 1.15, WIDTH)[:, None]
# a shelf of many edges behind the counter, blurred as a camera shows it
CLUTTER = cv2.GaussianBlur(
    cv2.resize(RNG.uniform(60, 200, (9, 12, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST), (0, 0), 2
)
COUNTERS = {"plain": PLAIN, "clutter": CLUTTER}


class Camera:
    """Two noisy pictures a second, shown to a detector."""

    def __init__(self):
        self.detector = PresenceDetector()
        self.now_s = 100.0
        self.stayed_s = 0.0  # how long something has been in one place

    def show(self, scene, seconds, noise=4.0, jitter_px=0):
        """Return what the detector says of each picture."""
        said = []
        for n in range(round(2 * seconds)):
            moved = scene
            if jitter_px:
                shift = np.float32(
                    [[1, 0, RNG.integers(-jitter_px, jitter_px + 1)], [0, 1, RNG.integers(-jitter_px, jitter_px + 1)]]
                )
                moved = cv2.warpAffine(scene, shift, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
            picture = np.clip(moved + noise * NOISE[n % len(NOISE)], 0, 255).astype(np.uint8)
            self.now_s += 0.5
            since_s = self.detector.update(picture, self.now_s)
            said.append(since_s is not None)
            self.stayed_s = 0.0 if since_s is None else self.now_s - since_s
        return said


@pytest.fixture
def camera():
    return Camera()


def with_box(scene, colour=(200, 170, 40), size=60, at=(40, 70)):
    """A scene with a box that has a label, put down."""
    shown = scene.copy()
    y, x = at
    shown[y : y + size, x : x + size] = colour
    shown[y + size // 3 : y + size // 2, x + 5 : x + size - 5] = (250, 250, 250)
    return shown


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
def test_thing_on_the_counter_is_there_until_it_is_taken_away(camera, counter):
    assert not any(camera.show(counter, 5))
    assert all(camera.show(with_box(counter), 12))
    assert not any(camera.show(counter, 5))


@pytest.mark.parametrize("colour", [(90, 90, 90), (235, 235, 235), (30, 30, 30), (90, 110, 200)])
def test_thing_of_any_colour_is_there(camera, colour):
    camera.show(PLAIN, 5)
    assert all(camera.show(with_box(PLAIN, colour), 3))


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
def test_empty_counter_stays_empty_in_other_light_and_noise(camera, counter):
    camera.show(counter, 5)
    for gain in (0.6, 1.25, 0.8):  # auto exposure
        assert not any(camera.show(counter * gain, 3))
    assert not any(camera.show(counter, 3, noise=7))
    for step in range(40):  # dusk, and the lamps are warm
        assert not any(camera.show(counter * (1 - step / 60) * [1 + step / 300, 1, 1 - step / 200], 1))


def test_soft_shadow_is_nothing(camera):
    shadow = np.ones((HEIGHT, WIDTH), np.float32)
    cv2.circle(shadow, (96, 72), 40, 0.6, -1)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 4)[..., None]
    camera.show(PLAIN, 5)
    assert not any(camera.show(PLAIN * shadow, 5))


def test_nothing_is_there_before_a_background_is_known(camera):
    assert not any(camera.show(with_box(PLAIN), LEARN_S - 0.5))


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
def test_thing_that_was_there_at_the_start_leaves_an_empty_counter(camera, counter):
    camera.show(with_box(counter, size=90, at=(20, 40)), 10)
    camera.show(PLAIN if counter is PLAIN else counter, ABSORB_S + 3)
    assert not any(camera.show(counter, 3))
    assert all(camera.show(with_box(counter, at=(20, 20)), 3))


def test_plain_counter_is_known_soon_after_a_first_thing_is_taken_away(camera):
    camera.show(with_box(PLAIN), 10)
    camera.show(PLAIN, LEARN_S + 1)
    assert not any(camera.show(PLAIN, 3))


def test_moved_clutter_becomes_background_and_a_thing_in_the_hand_does_not(camera):
    camera.show(PLAIN, 5)
    assert all(camera.show(with_box(PLAIN), ABSORB_S * 1.5, jitter_px=4))  # nobody holds still for so long
    camera.show(with_box(PLAIN), ABSORB_S + 2)
    assert not any(camera.show(with_box(PLAIN), 3))
    assert not any(camera.show(PLAIN, 3))  # what was behind it is still known
    assert not any(camera.show(with_box(PLAIN), 3))


def test_old_backgrounds_are_forgotten(camera):
    places = [(5, 5), (5, 120), (80, 5), (80, 120), (40, 60)]
    for at in places:
        camera.show(with_box(PLAIN, at=at, size=60), ABSORB_S + 3)
    assert not any(camera.show(with_box(PLAIN, at=places[1], size=60), 1))
    assert any(camera.show(with_box(PLAIN, at=places[0], size=60), 1))


def test_thing_in_the_hand_stays_in_one_place_and_a_passing_one_does_not(camera):
    camera.show(PLAIN, 5)
    camera.show(with_box(PLAIN), 6, jitter_px=4)
    assert camera.stayed_s >= 5.0
    camera.show(PLAIN, 5)
    for x in range(0, 130, 13):
        camera.show(with_box(PLAIN, at=(40, x)), 0.5)
        assert camera.stayed_s <= 1.0


def test_smooth_thing_before_a_counter_of_many_edges_is_no_counter(camera):
    """It has fewer edges than what it hides, as an emptied counter has; but this counter was seen to come back."""
    smooth = CLUTTER.copy()
    smooth[20:120, 40:150] = (210, 190, 60)
    camera.show(CLUTTER, 5)
    camera.show(with_box(CLUTTER), 2)
    camera.show(CLUTTER, 2)
    assert all(camera.show(smooth, 12))
