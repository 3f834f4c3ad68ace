"""When the detector need not run."""

import numpy as np
import pytest

from edge.config.schema import MotionConfig
from edge.recognition.motion_gate import MotionGate

RNG = np.random.default_rng(0)
GROUND = np.full((360, 640, 3), 100, np.uint8)


class Film:
    """Ten frames per second; the detector runs on those that the gate wants."""

    def __init__(self, sweep_s=1000.0):
        self.gate, self.now_s = MotionGate(MotionConfig(sweep_s=sweep_s)), 0.0

    def show(self, image_rgb, frames=1):
        """Return on how many frames the detector runs."""
        detector_runs = 0
        for _ in range(frames):
            self.now_s += 0.1
            if self.gate.is_detector_due(image_rgb() if callable(image_rgb) else image_rgb, self.now_s):
                detector_runs += 1
                self.gate.note_detection()
        return detector_runs


def with_square(x, size=24, shade=160):
    image_rgb = GROUND.copy()
    image_rgb[100 : 100 + size, x : x + size] = shade
    return image_rgb


def test_detector_runs_on_the_first_frame():
    assert Film().show(GROUND, 50) == 1


def test_appearing_object_is_motion_and_a_still_one_is_not():
    film = Film()
    film.show(GROUND, 5)
    assert film.show(with_square(100), 50) == 1


def test_slow_motion_adds_up():
    film, steps = Film(), iter(range(1000))
    film.show(with_square(100))
    assert film.show(lambda: with_square(100 + next(steps) // 10), 300) >= 3  # one pixel per second


def test_sensor_noise_is_no_motion():
    film, noisy = Film(), [np.clip(GROUND + RNG.normal(0, 8, GROUND.shape), 0, 255).astype(np.uint8) for _ in range(20)]
    assert sum(film.show(image_rgb) for image_rgb in noisy * 2) <= 3


def test_flicker_is_learned_as_noise_for_its_place_only():
    film = Film()

    def flickering():
        return with_square(300, shade=int(RNG.integers(98, 112)))

    film.show(flickering, 50)
    assert film.show(flickering, 50) <= 2
    both = flickering()
    both[100:124, 100:124] = 160
    assert film.show(both) == 1


@pytest.mark.parametrize(("sweep_s", "detector_runs"), [(1.0, 6), (2.5, 3)])
def test_sweep_runs_the_detector_on_a_still_scene(sweep_s, detector_runs):
    assert Film(sweep_s).show(GROUND, 56) == detector_runs


def test_detector_runs_when_the_clock_steps_back():
    film = Film()
    film.show(GROUND, 20)
    film.now_s = -5.0
    assert film.show(GROUND) == 1


def test_change_of_resolution_is_no_motion():
    film = Film()
    film.show(GROUND, 5)
    assert film.show(GROUND[::2, ::2]) == 0


@pytest.mark.parametrize(("width", "height", "detector_runs"), [(4, 4, 0), (8, 4, 1), (4, 8, 1)])
def test_change_of_two_compared_pixels_is_motion_and_of_one_is_not(width, height, detector_runs):
    film, still = Film(), np.full((4 * 54, 4 * 96, 3), 100, np.uint8)  # a compared pixel is the mean of 4 x 4
    film.show(still, 5)
    moved = still.copy()
    moved[40 : 40 + height, 80 : 80 + width] = 160
    assert film.show(moved) == detector_runs


@pytest.mark.parametrize(("change", "detector_runs"), [(6, 0), (7, 1), (-6, 0), (-7, 1)])
def test_change_of_more_than_six_grey_levels_is_motion(change, detector_runs):
    film = Film()
    film.show(GROUND, 60)
    assert film.show(with_square(100, size=48, shade=100 + change)) == detector_runs
