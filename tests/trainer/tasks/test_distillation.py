"""Distillation: a student imitates its teacher, and the teacher does not change."""

from __future__ import annotations

import csv

import pytest
import torch

from edge.errors import TrainError
from tests.trainer.toy import BACKBONE, classifier_recipe, embedder_recipe, write_crops
from trainer.models.networks import load_model
from trainer.tasks.classifier import train_classifier
from trainer.tasks.distillation import TeacherEnsemble, mean_angle, softened_divergence
from trainer.tasks.embedder import train_embedders


def vectors_of(folder, x):
    network, _ = load_model(folder)
    with torch.no_grad():
        return network(x)


@pytest.fixture
def pictures():
    return torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_divergence_is_zero_at_the_teachers_logits_and_grows():
    teacher_logits = torch.tensor([[4.0, 0.0, -2.0]])
    assert softened_divergence(teacher_logits + 7.0, teacher_logits).item() == pytest.approx(0.0, abs=1e-6)
    assert (
        softened_divergence(teacher_logits.flip(1), teacher_logits)
        > softened_divergence(teacher_logits * 0.5, teacher_logits)
        > 0
    )


def test_mean_angle_ignores_length():
    features = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    assert mean_angle(3.0 * features, features).item() == pytest.approx(0.0, abs=1e-6)
    assert mean_angle(-features, features).item() == pytest.approx(2.0, abs=1e-6)


def test_embedder_with_teacher_ends_nearer_to_its_vectors(tmp_path, pictures):
    index = write_crops(tmp_path / "data")
    train_embedders(embedder_recipe(index, epochs=3), tmp_path / "teacher")
    before = (tmp_path / "teacher/model.safetensors").read_bytes()
    other = {"epochs": 8, "seed": 7}
    train_embedders(embedder_recipe(index, **other), tmp_path / "alone")
    taught = embedder_recipe(index, **other, teacher=tmp_path / "teacher", distil=10.0)
    train_embedders(taught, tmp_path / "taught")
    teacher_logits = vectors_of(tmp_path / "teacher", pictures)
    taught_angle, alone_angle = (
        mean_angle(vectors_of(tmp_path / n, pictures), teacher_logits) for n in ("taught", "alone")
    )
    assert taught_angle < 0.7 * alone_angle
    assert (tmp_path / "teacher/model.safetensors").read_bytes() == before


def test_classifier_with_teacher_predicts_like_it(tmp_path, pictures):
    index = write_crops(tmp_path / "data")
    train_classifier(classifier_recipe(index, epochs=6), tmp_path / "teacher")
    train_classifier(classifier_recipe(index, seed=7), tmp_path / "alone")
    taught = classifier_recipe(index, seed=7, teachers=[tmp_path / "teacher"], distil=5.0)
    train_classifier(taught, tmp_path / "taught")
    teacher_logits = vectors_of(tmp_path / "teacher", pictures)
    gap = {
        name: (vectors_of(tmp_path / name, pictures) - teacher_logits).square().mean() for name in ("taught", "alone")
    }
    assert gap["taught"] < gap["alone"]
    shapes = [{k: v.shape for k, v in load_model(tmp_path / n)[0].state_dict().items()} for n in ("taught", "alone")]
    assert shapes[0] == shapes[1]


def test_teacher_ensemble_averages_log_probabilities(tmp_path, pictures):
    index = write_crops(tmp_path / "data")
    folders = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(folders):
        train_classifier(classifier_recipe(index, epochs=1, seed=seed), folder)
    networks, cards = zip(*map(load_model, folders), strict=True)
    teachers = TeacherEnsemble(folders, cards[0])
    teacher_logits, features = teachers.classify(pictures)
    with torch.no_grad():
        expected = sum(network.eval()(pictures).log_softmax(dim=1) for network in networks) / 2
    torch.testing.assert_close(teacher_logits, expected)
    assert [feature.shape for feature in features] == [(len(pictures), n) for n in teachers.channels]


def test_teacher_of_another_length_works_through_a_projection(tmp_path, pictures):
    index = write_crops(tmp_path / "data")
    train_embedders(embedder_recipe(index, epochs=3, dim=12, heads=["class"]), tmp_path / "teacher")
    student = {"seed": 7, "teacher": tmp_path / "teacher", "heads": ["class", "local"]}
    finals = {}
    for weight in (0.01, 10.0):
        out = tmp_path / f"taught-{weight}"
        train_embedders(embedder_recipe(index, epochs=8, distil=weight, **student), out)
        with (out / "metrics.csv").open() as file:
            finals[weight] = float(list(csv.DictReader(file))[-1]["loss_teacher"]) / weight
    assert finals[10.0] < 0.7 * finals[0.01]
    assert vectors_of(tmp_path / "taught-10.0", pictures).shape == (
        16,
        16,
    )  # its own length; the projection is not saved


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backbone": BACKBONE, "input": {"width": 32, "height": 32, "mean": (0, 0, 0)}}, "mean and std"),
    ],
)
def test_teacher_with_another_input_is_rejected(tmp_path, changes, named):
    index = write_crops(tmp_path / "data")
    train_embedders(embedder_recipe(index, epochs=1), tmp_path / "teacher")
    with pytest.raises(TrainError, match=f"differs from the recipe in {named}"):
        train_embedders(embedder_recipe(index, teacher=tmp_path / "teacher", **changes), tmp_path / "student")
