"""Distillation: training a network to imitate a trained network of the same kind, picture by picture.

Sources: softened probabilities, Hinton et al. 2015 (arXiv 1503.02531); features through a learned projection, Romero et
al. 2015 (FitNets, arXiv 1412.6550). The teacher sees the same augmented picture as the student. Vectors of another
length are regressed through a projection, which Budnik and Avrithis (CVPR 2021) found hard to beat.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from edge.errors import TrainError
from trainer.distributed import gather_rows
from trainer.models.networks import Classifier, ModelCard, Network, load_model

TEMPERATURE = 1.0  # temperature of the probabilities: teachers trained with label smoothing are soft already


class Teacher:
    """A frozen classifier or embedder."""

    def __init__(self, folder: Path, student: ModelCard) -> None:
        """Load a training run.

        Raises:
            TrainError: it cannot be used, or its kind, labels or input differ from the student's.
        """
        self.network, card = load_model(folder)
        self.vector_parts = card.vector_parts if card.kind == "embedder" else []
        keys = ("kind", "labels") if student.kind == "classifier" else ("kind",)
        wrong = [key for key in keys if getattr(card, key) != getattr(student, key)]
        if (card.preprocess.mean, card.preprocess.std) != (student.preprocess.mean, student.preprocess.std):
            wrong.append("mean and std")
        if wrong:
            raise TrainError(f"teacher {folder}: this run differs from the recipe in {', '.join(wrong)}")
        self.network.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        """Return the length of an embedder's joint vector."""
        return sum(head.dim for head in self.vector_parts)

    @property
    def channels(self) -> int:
        """Return the channels of the trunk's last map."""
        return int(self.network.trunk.channels[-1])

    def classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n, 3, h, w) to (n, classes) log-probabilities and the averages (n, channels) of the last map."""
        network = self._on(x)
        assert isinstance(network, Classifier)  # checked by its card
        with torch.no_grad():
            feature = network.trunk(x)[-1]
            teacher_logits = F.log_softmax(network.decide(feature), dim=1)
            return gather_rows(teacher_logits), gather_rows(feature.mean(dim=(2, 3)))

    def embed(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to the joint (n, dim), rows of unit length."""
        with torch.no_grad():
            vectors: Tensor = gather_rows(self._on(x)(x))
        return vectors

    def _on(self, x: Tensor) -> Network:
        """Move the network to the device of `x`."""
        self.network.to(x.device).eval()
        return self.network


class TeacherEnsemble:
    """An ensemble of classifiers: the mean of their log-probabilities, and the features of each.

    A fine-tuned network and one that kept its published trunk err on different pictures, because fine-tuning distorts
    the pretrained features (Kumar et al. 2022, arXiv 2202.10054).
    """

    def __init__(self, folders: list[Path], student: ModelCard) -> None:
        """Load training runs.

        Raises:
            TrainError: one cannot be used, or its kind, labels or input differ from the student's.
        """
        self.teachers = [Teacher(folder, student) for folder in folders]

    @property
    def channels(self) -> list[int]:
        """Return the channels of each trunk's last map."""
        return [teacher.channels for teacher in self.teachers]

    def classify(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (n, 3, h, w) to (n, classes) logits and each teacher's (n, channels) features."""
        teacher_logits, features = zip(*(teacher.classify(x) for teacher in self.teachers), strict=True)
        return torch.stack(teacher_logits).mean(dim=0), list(features)


def softened_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the Kullback-Leibler divergence from the teacher's softened probabilities, times temperature squared."""
    ours = F.log_softmax(logits / temperature, dim=1)
    theirs = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def mean_angle(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean of 1 - cos between paired rows."""
    return 1.0 - F.cosine_similarity(features, teacher_features, dim=1).mean()
