"""When a camera's picture is believed."""

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
    """Pictures four times a second, judged."""

    def __init__(self, **config):
        self.view = TamperDetector(ViewConfig(**config))
        self.now_s = 100.0

    def show(self, seconds, picture):
        """Judge what `picture` gives at each moment; return the last verdict."""
        for _ in range(round(seconds * 4)):
            self.now_s += 0.25
            verdict = self.view.update(picture() if callable(picture) else picture, self.now_s)
        return verdict


def with_clock(scene):
    picture = scene.copy()
    picture[CLOCK] = RNG.integers(0, 255, picture[CLOCK].shape)
    return picture


def test_a_constant_picture_is_frozen_after_the_stated_time_and_says_so():
    film = Film(frozen_after_s=20)
    assert film.show(20, SCENE).state == "online"
    verdict = film.show(1, SCENE)
    assert (verdict.state, verdict.doubt) == ("frozen", "frozen")
    assert verdict.evidence.startswith("nothing new for 21 s in 192 blocks")


def test_one_new_picture_thaws_it():
    film = Film(frozen_after_s=20)
    film.show(30, SCENE)
    verdict = film.show(0.25, noisy(SCENE))
    assert (verdict.state, verdict.doubt) == ("online", None)
    assert film.show(19, SCENE).state == "online"


def test_a_still_scene_with_sensor_noise_is_not_frozen():
    assert Film(frozen_after_s=20).show(60, lambda: noisy(SCENE, 0.5)).state == "online"


def test_a_still_scene_whose_noise_is_sent_with_key_frames_only_is_not_frozen():
    film = Film(frozen_after_s=20)
    for _ in range(5):
        picture = noisy(SCENE, 0.5)
        assert film.show(18, picture).state == "online"


def test_a_clip_that_is_played_in_a_loop_is_not_frozen():
    film, clip = Film(frozen_after_s=20), [np.roll(SCENE, 4 * i, axis=1) for i in range(20)]
    assert {film.show(0.25, clip[i % 20]).state for i in range(400)} == {"online"}


def test_a_frozen_camera_whose_encoder_repeats_itself_is_frozen():
    film, phases = Film(frozen_after_s=20), [noisy(SCENE) for _ in range(8)]
    verdicts = [film.show(0.25, phases[i % 8]) for i in range(100)]
    assert verdicts[-1].state == "frozen"


class Encoder:
    """Gives one picture in ever new qualities, and now and then in one that it had before."""

    def __init__(self, scene, sigma=0.7):
        self.qualities = [noisy(scene, sigma) for _ in range(200)]

    def __call__(self):
        return self.qualities[RNG.integers(len(self.qualities))]


def test_a_frozen_camera_whose_encoder_varies_the_quality_is_frozen():
    film = Film(frozen_after_s=20)
    assert film.show(20, Encoder(SCENE)).state == "online"
    verdict = film.show(60, Encoder(SCENE))
    assert verdict.state == "frozen"
    assert verdict.evidence.startswith("the same picture, encoded again and again, for ")


def test_a_clock_does_not_thaw_that():
    film, encoder = Film(frozen_after_s=20), Encoder(SCENE)
    assert film.show(80, lambda: with_clock(encoder())).state == "frozen"


def test_what_moves_thaws_that_at_once_and_noise_in_a_while():
    film, encoder = Film(frozen_after_s=20), Encoder(SCENE)
    film.show(80, encoder)
    changed = SCENE.copy()
    changed[50:70, 60:80] = 128
    assert film.show(0.25, changed).state == "online"
    film.show(80, encoder)
    assert film.show(21, lambda: noisy(SCENE, 0.7)).state == "online"


def test_a_slow_clip_that_is_played_in_a_loop_is_not_frozen():
    soft = image.resize(image.resize(SCENE, 8, 6, "area"), WIDTH, HEIGHT)
    clip = [np.roll(soft, i, axis=1) for i in range(WIDTH)]
    film = Film(frozen_after_s=20)
    assert {film.show(0.25, clip[i % WIDTH]).state for i in range(4 * WIDTH)} == {"online"}


@pytest.mark.parametrize("detail", [SCENE // 80, blurred(SCENE) // 2])
def test_a_picture_without_fine_detail_that_comes_back_is_not_called_frozen(detail):
    """A dark or blurred scene, whose noise the encoder all but drops, comes back by chance."""
    film = Film(frozen_after_s=20, obstructed_after_s=None)
    assert film.show(80, Encoder(detail + 60, 0.3)).state == "online"


def test_a_burnt_in_clock_does_not_thaw_a_frozen_picture():
    verdict = Film(frozen_after_s=20).show(30, lambda: with_clock(SCENE))
    assert verdict.state == "frozen"
    assert "that may be a clock" in verdict.evidence


def test_as_small_a_change_in_the_middle_is_life():
    def moved():
        return np.roll(with_clock(SCENE), 55, axis=0)

    assert Film(frozen_after_s=20).show(30, moved).state == "online"


def test_what_the_mask_covers_may_change_in_a_frozen_picture():
    def half():
        picture = SCENE.copy()
        picture[:, :80] = RNG.integers(0, 255, (HEIGHT, 80, 3))
        return picture

    assert Film(frozen_after_s=20).show(30, half).state == "online"
    assert Film(frozen_after_s=20, mask=((0, 0, 0.5, 1),)).show(30, half).state == "frozen"


def test_a_picture_without_detail_is_not_called_frozen():
    assert Film(frozen_after_s=20, obstructed_after_s=None).show(30, np.zeros_like(SCENE)).state == "online"


def test_another_resolution_is_a_new_picture():
    film = Film(frozen_after_s=20)
    film.show(15, SCENE)
    assert film.show(10, image.resize(SCENE, 640, 480)).state == "online"


def test_nothing_is_frozen_when_that_is_switched_off():
    assert Film(frozen_after_s=None).show(120, SCENE).state == "online"


def test_a_clock_that_steps_back_begins_anew():
    film = Film(frozen_after_s=20)
    film.show(15, SCENE)
    film.now_s -= 90
    assert film.show(15, SCENE).state == "online"


@pytest.mark.parametrize("shade", [0, 16, 128, 255])
def test_a_covered_lens_is_doubted_at_once_and_obstructed_when_it_lasts(shade):
    film = Film(obstructed_after_s=3)
    film.show(5, lambda: noisy(SCENE))
    covered = noisy(np.full_like(SCENE, shade))
    verdict = film.show(0.25, covered)
    assert (verdict.state, verdict.doubt) == ("online", "obstructed")
    verdict = film.show(3, covered)
    assert (verdict.state, verdict.doubt) == ("obstructed", "obstructed")
    assert verdict.evidence.startswith("luma ")


def test_a_clear_picture_ends_the_obstruction():
    film = Film(obstructed_after_s=3)
    film.show(10, np.zeros_like(SCENE))
    assert film.show(0.25, noisy(SCENE)).doubt is None


def test_a_blurred_picture_is_obstructed_once_the_camera_is_known():
    film = Film(obstructed_after_s=3, frozen_after_s=None)
    film.show(40, lambda: noisy(SCENE))
    verdict = film.show(4, lambda: noisy(blurred(SCENE)))
    assert verdict.state == "obstructed"
    assert "of usual" in verdict.evidence


def test_what_is_usual_is_remembered_when_the_camera_is_opened_again():
    film = Film(obstructed_after_s=3, frozen_after_s=None)
    film.show(40, lambda: noisy(SCENE))
    film.view.reset()
    assert film.show(4, lambda: noisy(blurred(SCENE))).state == "obstructed"


def test_another_scene_with_few_edges_becomes_usual_in_some_hours():
    film = Film(obstructed_after_s=3, frozen_after_s=None)
    film.show(40, lambda: noisy(SCENE))
    verdicts = []
    for _ in range(180):
        film.now_s += 60
        verdicts.append(film.show(0.25, noisy(SCENE // 9 + np.linspace(0, 80, WIDTH).astype(np.uint8)[:, None])))
    assert (verdicts[30].state, verdicts[-1].state) == ("obstructed", "online")


def test_a_camera_that_always_shows_few_edges_is_not_obstructed():
    ramp = np.broadcast_to(np.linspace(80, 120, WIDTH)[:, None], SCENE.shape)
    assert Film(obstructed_after_s=3).show(60, lambda: noisy(ramp)).state == "online"


def test_half_of_the_usual_edges_is_no_obstruction():
    film = Film(obstructed_after_s=3)
    film.show(40, lambda: noisy(SCENE))
    assert film.show(10, lambda: noisy(SCENE // 2 + 60)).state == "online"


def test_a_slow_dusk_does_not_obstruct():
    film = Film(obstructed_after_s=3)
    film.show(60, lambda: noisy(SCENE))
    for share in np.geomspace(1, 0.25, 60):  # over an hour
        dimmed = (SCENE * share).astype(np.uint8)
        film.now_s += 60
        assert film.show(0.25, noisy(dimmed)).doubt is None


def test_between_two_checks_the_verdict_stands():
    film = Film(obstructed_after_s=3)
    film.show(1, np.zeros_like(SCENE))
    assert film.view.update(SCENE, film.now_s + 0.1).doubt == "obstructed"
    assert film.view.update(SCENE, film.now_s + 0.3).doubt is None
