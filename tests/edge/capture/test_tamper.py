"""Detection of frozen and obstructed cameras."""

import numpy as np
import pytest

from edge.capture.tamper import TamperDetector
from edge.config.schema import ViewConfig
from edge.imaging import image

RNG = np.random.default_rng(0)
WIDTH, HEIGHT = 160, 120
SCENE = image.resize(RNG.integers(0, 255, (24, 32, 3), dtype=np.uint8), WIDTH, HEIGHT)
CLOCK = (slice(3, 9), slice(100, 118))


def noisy(scene, sigma=1.5):
    return np.clip(scene + RNG.normal(0, sigma, scene.shape), 0, 255).astype(np.uint8)


def blurred(scene):
    return image.resize(image.resize(scene, 3, 2, "area"), WIDTH, HEIGHT)


class Film:
    """Shows a detector four pictures a second."""

    def __init__(self, **config):
        self.detector = TamperDetector(ViewConfig(**config))
        self.now_s = 100.0

    def show(self, seconds, picture):
        """Show what `picture` gives at each moment; return the last state."""
        for _ in range(round(seconds * 4)):
            self.now_s += 0.25
            tamper = self.detector.update(picture() if callable(picture) else picture, self.now_s)
        return tamper


def with_clock(scene):
    picture = scene.copy()
    picture[CLOCK] = RNG.integers(0, 255, picture[CLOCK].shape)
    return picture


def test_constant_picture_is_frozen_after_the_configured_time():
    film = Film(frozen_after_s=20)
    assert film.show(20, SCENE).state == "online"
    tamper = film.show(1, SCENE)
    assert (tamper.state, tamper.suspected) == ("frozen", "frozen")
    assert tamper.reason.startswith("nothing new for 21 s in 192 blocks")


def test_one_new_picture_ends_frozen():
    film = Film(frozen_after_s=20)
    film.show(30, SCENE)
    tamper = film.show(0.25, noisy(SCENE))
    assert (tamper.state, tamper.suspected) == ("online", None)
    assert film.show(19, SCENE).state == "online"


def test_still_scene_with_noise_is_not_frozen():
    assert Film(frozen_after_s=20).show(60, lambda: noisy(SCENE, 0.5)).state == "online"


def test_still_scene_with_noise_in_key_frames_only_is_not_frozen():
    film = Film(frozen_after_s=20)
    for _ in range(5):
        picture = noisy(SCENE, 0.5)
        assert film.show(18, picture).state == "online"


def test_looped_clip_is_not_frozen():
    film, clip = Film(frozen_after_s=20), [np.roll(SCENE, 4 * i, axis=1) for i in range(20)]
    assert {film.show(0.25, clip[i % 20]).state for i in range(400)} == {"online"}


def test_frozen_camera_with_repeating_encoder_is_detected():
    film, phases = Film(frozen_after_s=20), [noisy(SCENE) for _ in range(8)]
    found = [film.show(0.25, phases[i % 8]) for i in range(100)]
    assert found[-1].state == "frozen"


class Encoder:
    """Encodes one picture in ever new qualities, and now and then repeats one."""

    def __init__(self, scene, sigma=0.7):
        self.qualities = [noisy(scene, sigma) for _ in range(200)]

    def __call__(self):
        return self.qualities[RNG.integers(len(self.qualities))]


def test_frozen_camera_with_constant_bitrate_encoder_is_detected():
    film = Film(frozen_after_s=20)
    assert film.show(20, Encoder(SCENE)).state == "online"
    tamper = film.show(60, Encoder(SCENE))
    assert tamper.state == "frozen"
    assert tamper.reason.startswith("the same picture, encoded again and again, for ")


def test_clock_does_not_end_frozen_with_constant_bitrate_encoder():
    film, encoder = Film(frozen_after_s=20), Encoder(SCENE)
    assert film.show(80, lambda: with_clock(encoder())).state == "frozen"


def test_motion_ends_frozen_at_once_and_noise_after_a_while():
    film, encoder = Film(frozen_after_s=20), Encoder(SCENE)
    film.show(80, encoder)
    changed = SCENE.copy()
    changed[50:70, 60:80] = 128
    assert film.show(0.25, changed).state == "online"
    film.show(80, encoder)
    assert film.show(21, lambda: noisy(SCENE, 0.7)).state == "online"


def test_slow_looped_clip_is_not_frozen():
    soft = image.resize(image.resize(SCENE, 8, 6, "area"), WIDTH, HEIGHT)
    clip = [np.roll(soft, i, axis=1) for i in range(WIDTH)]
    film = Film(frozen_after_s=20)
    assert {film.show(0.25, clip[i % WIDTH]).state for i in range(4 * WIDTH)} == {"online"}


@pytest.mark.parametrize("detail", [SCENE // 80, blurred(SCENE) // 2])
def test_repeating_picture_without_fine_detail_is_not_frozen(detail):
    """A dark or blurred scene, whose noise the encoder all but drops, repeats by chance."""
    film = Film(frozen_after_s=20, obstructed_after_s=None)
    assert film.show(80, Encoder(detail + 60, 0.3)).state == "online"


def test_burnt_in_clock_does_not_end_frozen():
    tamper = Film(frozen_after_s=20).show(30, lambda: with_clock(SCENE))
    assert tamper.state == "frozen"
    assert "that may be a clock" in tamper.reason


def test_change_in_the_middle_as_small_as_a_clock_ends_frozen():
    def moved():
        return np.roll(with_clock(SCENE), 55, axis=0)

    assert Film(frozen_after_s=20).show(30, moved).state == "online"


def test_masked_area_may_change_in_a_frozen_picture():
    def half():
        picture = SCENE.copy()
        picture[:, :80] = RNG.integers(0, 255, (HEIGHT, 80, 3))
        return picture

    assert Film(frozen_after_s=20).show(30, half).state == "online"
    assert Film(frozen_after_s=20, mask=((0, 0, 0.5, 1),)).show(30, half).state == "frozen"


def test_picture_without_detail_is_not_frozen():
    assert Film(frozen_after_s=20, obstructed_after_s=None).show(30, np.zeros_like(SCENE)).state == "online"


def test_change_of_resolution_is_a_new_picture():
    film = Film(frozen_after_s=20)
    film.show(15, SCENE)
    assert film.show(10, image.resize(SCENE, 640, 480)).state == "online"


def test_frozen_detection_can_be_switched_off():
    assert Film(frozen_after_s=None).show(120, SCENE).state == "online"


def test_time_that_steps_back_resets_the_detector():
    film = Film(frozen_after_s=20)
    film.show(15, SCENE)
    film.now_s -= 90
    assert film.show(15, SCENE).state == "online"


@pytest.mark.parametrize("shade", [0, 16, 128, 255])
def test_covered_lens_is_suspected_at_once_and_obstructed_later(shade):
    film = Film(obstructed_after_s=3)
    film.show(5, lambda: noisy(SCENE))
    covered = noisy(np.full_like(SCENE, shade))
    tamper = film.show(0.25, covered)
    assert (tamper.state, tamper.suspected) == ("online", "obstructed")
    tamper = film.show(3, covered)
    assert (tamper.state, tamper.suspected) == ("obstructed", "obstructed")
    assert tamper.reason.startswith("luma ")


def test_clear_picture_ends_obstructed():
    film = Film(obstructed_after_s=3)
    film.show(10, np.zeros_like(SCENE))
    assert film.show(0.25, noisy(SCENE)).suspected is None


def test_blurred_picture_is_obstructed_once_usual_edges_are_known():
    film = Film(obstructed_after_s=3, frozen_after_s=None)
    film.show(40, lambda: noisy(SCENE))
    tamper = film.show(4, lambda: noisy(blurred(SCENE)))
    assert tamper.state == "obstructed"
    assert "of usual" in tamper.reason


def test_usual_edges_survive_a_reopen():
    film = Film(obstructed_after_s=3, frozen_after_s=None)
    film.show(40, lambda: noisy(SCENE))
    film.detector.reset()
    assert film.show(4, lambda: noisy(blurred(SCENE))).state == "obstructed"


def test_new_scene_with_few_edges_becomes_usual_in_hours():
    film = Film(obstructed_after_s=3, frozen_after_s=None)
    film.show(40, lambda: noisy(SCENE))
    found = []
    for _ in range(180):
        film.now_s += 60
        found.append(film.show(0.25, noisy(SCENE // 9 + np.linspace(0, 80, WIDTH).astype(np.uint8)[:, None])))
    assert (found[30].state, found[-1].state) == ("obstructed", "online")


def test_scene_that_always_has_few_edges_is_not_obstructed():
    ramp = np.broadcast_to(np.linspace(80, 120, WIDTH)[:, None], SCENE.shape)
    assert Film(obstructed_after_s=3).show(60, lambda: noisy(ramp)).state == "online"


def test_half_of_the_usual_edges_is_not_obstructed():
    film = Film(obstructed_after_s=3)
    film.show(40, lambda: noisy(SCENE))
    assert film.show(10, lambda: noisy(SCENE // 2 + 60)).state == "online"


def test_slow_dusk_is_not_obstructed():
    film = Film(obstructed_after_s=3)
    film.show(60, lambda: noisy(SCENE))
    for share in np.geomspace(1, 0.25, 60):  # over an hour
        dimmed = (SCENE * share).astype(np.uint8)
        film.now_s += 60
        assert film.show(0.25, noisy(dimmed)).suspected is None


def test_state_stays_between_two_checks():
    film = Film(obstructed_after_s=3)
    film.show(1, np.zeros_like(SCENE))
    assert film.detector.update(SCENE, film.now_s + 0.1).suspected == "obstructed"
    assert film.detector.update(SCENE, film.now_s + 0.3).suspected is None
