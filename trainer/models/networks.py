"""The networks, and the model card that describes how to build, feed and read each of them.

All are static graphs of convolution, ReLU, addition and average pooling, so that they export and quantise well.
A saved model is two files: `model.safetensors` (weights) and `model.json` (the card). No pickle.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from edge.durable import write_durably
from edge.errors import TrainError, first_validation_error
from edge.finder_shape import FinderShape
from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess
from trainer.disk_errors import report_disk_errors
from trainer.distributed import is_rank0
from trainer.models.backbone import Trunk, create_trunk
from trainer.models.cut_to_mask import CutToMask
from trainer.models.finder_network import Finder
from trainer.models.free_methods import FreeMethod
from trainer.models.localiser_network import STRIDES, Localiser, MaskNetwork, TrunkLocaliser
from trainer.models.scda_network import FreeEmbedder
from trainer.recipe_parts import Backbone

WEIGHTS_FILE, CARD_FILE = "model.safetensors", "model.json"
_RETIRED_KEYS = {"map_threshold"}  # keys of a card, see ADR 0010


class ModelCard(BaseModel):
    """The card of a trained network: its kind, its shape, its input, its data and its metrics."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: Literal["detector", "classifier", "embedder", "localiser", "finder"]
    backbone: str  # a timm name; empty for a localiser without one
    backbone_options: dict[str, Any] = {}
    preprocess: Preprocess  # mean and std included
    strides: list[int]  # of the trunk's maps, empty for a whole trunk; a detector has one output per stride
    grey: bool = False  # the network converts its input to grey
    # Of the localiser that cuts the background out of the input, see trainer.models.cut_to_mask; None: it stays.
    cut_to_mask: ModelCard | None = None
    # Channels of a detector's neck, an embedder head's convolution, a classifier's first hidden layer, a localiser's
    # finest stage, or a finder's conversion network.
    width: int
    further_widths: list[int] = []  # of a classifier's further hidden layers
    dropout: float = 0.3  # of a classifier, in training
    descriptor_dim: int = 0  # length of a classifier's descriptor of a crop; 0: none
    grid: int = 1  # cells along each axis that an embedder head's fully-connected layer sees; 1: average
    pool: Literal["average", "max_average"] = "average"  # of an embedder's heads
    joint: Literal["concat", "sum"] = "concat"  # how an embedder's heads are joined
    shorter_dims: list[int] = []  # prefixes of each head's vector that work alone, see trainer.tasks.shrink_embedder
    free: FreeMethod | None = None  # how an embedder without trained heads makes its vector; None: by its heads
    labels: list[str] = []  # classes of a detector, categories of a classifier
    categories: list[str] = []  # of an embedder
    heads: list[Head] = []  # of an embedder, in the order of the joint vector
    projection: bool = True  # False: an embedder's heads have no fully-connected layer
    finder: FinderShape | None = None
    channels: int = 0  # of a finder's representations
    guide: int = 0  # channels of the scene that a finder's conversion network sees
    shared_trunk: bool = True  # of a finder
    score_threshold: float = 0.3  # of a detector or finder
    temperature: float = 1.0  # of a classifier: logits are divided by it
    seed: int = 0
    data: dict[str, Any] = {}  # training data: source, counts, skipped pictures
    metrics: dict[str, Any] = {}  # on the validation split
    recipe: dict[str, Any] = {}  # the recipe as run

    @model_validator(mode="before")
    @classmethod
    def _drop_retired_keys(cls, tree: Any) -> Any:
        """Drop the retired keys of older cards. In a finder's card they are errors, like any unknown key."""
        if not isinstance(tree, dict) or tree.get("kind") == "finder":
            return tree
        return {key: value for key, value in tree.items() if key not in _RETIRED_KEYS}

    @property
    def vector_parts(self) -> list[Head]:
        """Return the parts of an embedder's joint vector, as the device knows them; a sum is one part."""
        return [Head(name="sum", dim=self.heads[0].dim)] if self.joint == "sum" else self.heads


class Grey(nn.Module):
    """Converts a normalised picture to grey: the luma of Rec. 601, equal in all channels before normalisation."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        luma = torch.tensor([0.299, 0.587, 0.114])
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        # Not saved but built from the card, so that the trunk's weights fit a network with and without it.
        self.register_buffer("mix", (luma * std / std[:, None]).reshape(3, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((luma * mean).sum() - mean) / std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to the same shape."""
        return F.conv2d(x, self.mix, self.shift)


class _Separable(nn.Sequential):
    """Depthwise 3x3, pointwise, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_in, 3, padding=1, groups=channels_in, bias=False),
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class Detector(nn.Module):
    """An anchor-free detector (FCOS, Tian et al. 2019) with a light feature pyramid."""

    def __init__(self, trunk: Trunk, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for channels in trunk.channels
        )
        self.smooth = nn.ModuleList(_Separable(width, width) for _ in trunk.channels)
        self.tower = nn.Sequential(_Separable(width, width), _Separable(width, width))
        self.boxes = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in trunk.channels)
        self.scores = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in trunk.channels)
        for boxes, scores in zip(self.boxes, self.scores, strict=True):
            nn.init.constant_(boxes.bias, 2.0)  # in cells: starts where the ReLU is active
            nn.init.constant_(scores.bias, -math.log(99.0))  # one cell in a hundred is an object

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (n, 3, h, w) to one (n, 4 + classes, h / stride, w / stride) per stride.

        edge.inference.postprocess.decode_ltrb decodes them.
        """
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, self.trunk(x), strict=True)]
        for fine in range(len(maps) - 2, -1, -1):
            maps[fine] = maps[fine] + F.interpolate(maps[fine + 1], scale_factor=2.0, mode="nearest")
        outputs = []
        for level, smooth, boxes, scores in zip(maps, self.smooth, self.boxes, self.scores, strict=True):
            tower = self.tower(smooth(level))
            outputs.append(torch.cat([F.relu(boxes(tower)), scores(tower)], dim=1))
        return outputs


class Classifier(nn.Module):
    """Trunk, average pool and the decision module of fully-connected layers; optionally a descriptor beside it."""

    def __init__(self, trunk: Trunk, widths: list[int], dropout: float, classes: int, descriptor_dim: int = 0) -> None:
        super().__init__()
        self.trunk = trunk
        layers: list[nn.Module] = []
        for before, width in pairwise([trunk.channels[-1], *widths]):
            layers += [nn.Linear(before, width), nn.ReLU(inplace=True)]
        layers.insert(2, nn.Dropout(dropout))
        self.decision = nn.Sequential(*layers, nn.Linear([trunk.channels[-1], *widths][-1], classes))
        self.descriptor: nn.Linear | None = None
        if descriptor_dim:  # fitted after training
            # Draws no random numbers: a seed gives the same training with and without a descriptor.
            self.descriptor = nn.utils.skip_init(nn.Linear, trunk.channels[-1], descriptor_dim)
            self.descriptor.requires_grad_(requires_grad=False)
            for part in self.descriptor.parameters():
                part.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, classes) logits."""
        return self.decide(self.trunk(x)[-1])

    def decide(self, feature: Tensor) -> Tensor:
        """Map the trunk's (n, c, h, w) to (n, classes) logits."""
        return self.decision(feature.mean(dim=(2, 3)))

    def fit_descriptor(self, pooled: Tensor) -> None:
        """Set the descriptor to the principal components of the pooled trunk, which keep its distances best.

        Args:
            pooled: pooled features of the training crops, (n, channels); n is at least the length of the descriptor.
        """
        assert self.descriptor is not None
        mean = pooled.mean(dim=0)
        _, _, axes = torch.linalg.svd(pooled - mean, full_matrices=False)
        weight = axes[: self.descriptor.out_features]
        self.descriptor.load_state_dict({"weight": weight, "bias": -(weight @ mean)})


class ClassifierWithDescriptor(nn.Module):
    """The form in which a classifier with a descriptor is exported."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        assert classifier.descriptor is not None
        self.classifier, self.descriptor = classifier, classifier.descriptor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n, 3, h, w) to (n, classes) logits and (n, descriptor_dim)."""
        pooled = self.classifier.trunk(x)[-1].mean(dim=(2, 3))
        return self.classifier.decision(pooled), self.descriptor(pooled)


def pool_grid(feature: Tensor, grid: int) -> Tensor:
    """Average a map into grid x grid cells and flatten: (n, c, h, w) to (n, c * grid * grid)."""
    if grid == 1:
        return feature.mean(dim=(2, 3))
    # The adaptive pool exports only when the sizes divide; here the cells overlap where they do not.
    height, width = (
        int(feature.shape[2]),
        int(feature.shape[3]),
    )  # plain integers, so that the exported graph has fixed cells
    stride = (height // grid, width // grid)
    kernel = (height - (grid - 1) * stride[0], width - (grid - 1) * stride[1])
    return F.avg_pool2d(feature, kernel, stride).flatten(1)


class EmbeddingHead(nn.Module):
    """Convolution (none where the width is 0), pool, fully-connected layer (none where `dim` is 0), unit length."""

    def __init__(self, channels: int, width: int, dim: int, grid: int, pool: str) -> None:
        super().__init__()
        self.block = _Separable(channels, width) if width else nn.Identity()
        self.with_max = pool == "max_average"
        self.inputs = (width or channels) * (grid * grid + int(self.with_max))
        self.project: nn.Linear | nn.Identity = nn.Linear(self.inputs, dim) if dim else nn.Identity()
        self.is_deferred = False  # the fully-connected layer is still to be fitted
        self.grid = grid

    def forward(self, feature: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, dim), rows of unit length."""
        return F.normalize(self.project(self.pool(feature)), dim=1)

    def pool(self, feature: Tensor) -> Tensor:
        """Map (n, c, h, w) to the input of the fully-connected layer, (n, inputs)."""
        feature = self.block(feature)
        pooled = pool_grid(feature, self.grid)
        if self.with_max:  # a pool of fixed size quantises; HDCL (2021) concatenates max and average
            largest = F.max_pool2d(feature, (int(feature.shape[2]), int(feature.shape[3])))
            pooled = torch.cat([pooled, largest.flatten(1)], dim=1)
        return pooled

    @property
    def outputs(self) -> int:
        """Return the length of the head's vector."""
        return self.project.out_features if isinstance(self.project, nn.Linear) else self.inputs

    def defer_projection(self) -> None:
        """Return what the fully-connected layer sees until `fit_projection` is called."""
        self.project, self.is_deferred = nn.Identity(), True

    def fit_projection(self, vectors: Tensor, dim: int) -> None:
        """Set the fully-connected layer to one that keeps the cosines between these vectors, see `compress`.

        Args:
            vectors: (n, inputs), rows of unit length.
            dim: length of the head's vector.
        """
        self.set_projection(compress(vectors, dim), torch.zeros(dim))

    def set_projection(self, weight: Tensor, bias: Tensor) -> None:
        """Set the fully-connected layer to weight (dim, inputs) and bias (dim,), for vectors of unit length."""
        self.project, self.is_deferred = nn.Linear(self.inputs, len(weight)), False
        self.project.load_state_dict({"weight": weight, "bias": bias})


def compress(vectors: Tensor, dim: int) -> Tensor:
    """Return a linear map (dim, inputs) that keeps the cosines between vectors.

    Two thirds of the numbers are the directions in which the vectors are long. The others are random sums of all other
    directions (Johnson and Lindenstrauss 1984): what these vectors lack is what an unknown object has, and without it
    every object would look like a known one.

    Args:
        vectors: (n, inputs).
        dim: numbers to keep; where it is at least `inputs`, the map is a rotation, and the last rows are zero.
    """
    inputs = vectors.shape[1]
    _, _, axes = torch.linalg.svd(vectors, full_matrices=dim >= inputs)
    if dim >= inputs:
        return torch.cat([axes, torch.zeros(dim - inputs, inputs, dtype=axes.dtype)])
    kept = axes[: min(len(axes), max(1, 2 * dim // 3))]
    drawn = torch.randn(dim - len(kept), inputs, generator=torch.Generator().manual_seed(0)).to(kept)
    others = drawn / math.sqrt(len(drawn))
    return torch.cat([kept, others - (others @ kept.T) @ kept])


class Embedder(nn.Module):
    """Trunk and one head per focus; the joint vector is their concatenation or sum, of unit length."""

    def __init__(self, trunk: Trunk, card: ModelCard) -> None:
        super().__init__()
        self.trunk = trunk
        self.summed = card.joint == "sum"
        self.heads = nn.ModuleDict(
            {
                f"{head.name}_head": EmbeddingHead(trunk.channels[-1], card.width, dim, card.grid, card.pool)
                for head, dim in ((head, head.dim if card.projection else 0) for head in card.heads)
            }
        )

    @property
    def part_dims(self) -> dict[str, int]:
        """Return the length of each part of the joint vector, by the name of its centres."""
        dims = {name.removesuffix("_head"): head.outputs for name, head in self.heads.items()}
        return {"joint": next(iter(dims.values()))} if self.summed else dims

    def defer_projection(self) -> None:
        """Return what the fully-connected layers see until each is fitted."""
        for head in self.heads.values():
            head.defer_projection()

    @property
    def is_deferred(self) -> bool:
        """Return whether a projection is still to be fitted."""
        return any(head.is_deferred for head in self.heads.values())

    def parts(self, x: Tensor) -> dict[str, Tensor]:
        """Map (n, 3, h, w) to one (n, dim) per head name, rows of unit length."""
        feature = self.trunk(x)[-1]
        return {name.removesuffix("_head"): head(feature) for name, head in self.heads.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to the joint (n, dim), rows of unit length."""
        return self.join(list(self.parts(x).values()))

    def join(self, parts: list[Tensor]) -> Tensor:
        """Join the vectors of the heads to (n, dim), rows of unit length."""
        if self.summed:
            return F.normalize(torch.stack(parts).sum(dim=0), dim=1)
        return torch.cat(parts, dim=1) * (1.0 / math.sqrt(len(parts)))


Network = Detector | Classifier | Embedder | FreeEmbedder | MaskNetwork | Finder


def _build_localiser(card: ModelCard, pretrained: str) -> MaskNetwork:
    if not card.backbone:
        return Localiser(card.width)
    return TrunkLocaliser(create_trunk(card.backbone, STRIDES, pretrained, card.backbone_options), card.width)


def build_model(card: ModelCard, pretrained: str = "none") -> Network:
    """Build the network of a card, with a fresh or pretrained trunk.

    Raises:
        TrainError: the backbone is unknown or its weights do not fit.
    """
    if card.kind == "localiser":
        return _build_localiser(card, pretrained)
    trunk = create_trunk(card.backbone, card.strides, pretrained, card.backbone_options)
    if card.grey:
        trunk.before = Grey(card.preprocess)
    if (seen := card.cut_to_mask) is not None:
        trunk.before = nn.Sequential(CutToMask(build_model(seen), seen.preprocess, card.preprocess), trunk.before)
    if card.kind == "detector":
        return Detector(trunk, card.width, len(card.labels))
    if card.kind == "classifier":
        widths = [width for width in (card.width, *card.further_widths) if width]
        return Classifier(trunk, widths, card.dropout, len(card.labels), card.descriptor_dim)
    if card.finder is not None:
        apart = (card.backbone, [s for s in card.strides if s >= card.finder.stride], pretrained, card.backbone_options)
        queries = None if card.shared_trunk else create_trunk(*apart)
        return Finder(trunk, queries, card.channels, card.guide, card.width, card.finder, card.preprocess)
    if card.free is None:
        return Embedder(trunk, card)
    return FreeEmbedder(trunk, card.free, card.heads[0].dim if card.heads else None)


def freeze_parts(model: Detector | Classifier | Embedder | Finder | MaskNetwork, how: Backbone) -> list[nn.Module]:
    """Freeze the first stages, and with `freeze_bn` the statistics of every batch norm, fresh heads included.

    A fresh batch norm that is frozen only scales and shifts. On eighty photos of cards, where a head's statistics do
    not converge in 160 steps of eight, this raised the detector's mAP50-95 on the validation photos from .315 to .611.
    A finder with two trunks freezes both; the effect on its fresh statistics was not measured.

    Returns:
        the parts that must stay in eval mode in training.

    Raises:
        TrainError: the trunk has fewer stages, or is not of the efficientnet and mobilenet families.
    """
    trunks = [part for part in model.modules() if isinstance(part, Trunk)]
    frozen = [part for trunk in trunks for part in trunk.freeze(how.frozen_stages)]
    return frozen + [part for part in model.modules() if how.freeze_bn and isinstance(part, _BatchNorm)]


def save_model(folder: Path, module: nn.Module, card: ModelCard) -> None:
    """Write `model.safetensors` and `model.json`, on rank 0 only.

    Raises:
        TrainError: the disk is full or not writable.
    """
    if not is_rank0():
        return
    weights = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    with report_disk_errors(f"{folder}: cannot save the model"):
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / WEIGHTS_FILE, save(weights))
        write_durably(folder / CARD_FILE, card.model_dump_json(indent=1).encode())


def load_card(folder: Path) -> ModelCard:
    """Read `model.json`.

    Raises:
        TrainError: it is missing or not a card.
    """
    path = folder / CARD_FILE
    try:
        return ModelCard.model_validate_json(path.read_text())
    except OSError as error:
        raise TrainError(f"{path}: cannot read: {error.strerror}") from error
    except ValidationError as error:
        raise TrainError(f"{path}: {first_validation_error(error)}") from error


def load_model(folder: Path) -> tuple[Network, ModelCard]:
    """Read a saved model: the network in eval mode, and its card.

    Raises:
        TrainError: a file is missing or damaged, or the weights do not fit the card's network.
    """
    card = load_card(folder)
    module = build_model(card)
    path = folder / WEIGHTS_FILE
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors raises its own, OSError and FileNotFoundError
        raise TrainError(f"{path}: cannot read weights: {error}") from error
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainError(f"{path} does not fit {CARD_FILE}: {' '.join(str(error).split())[:300]}") from error
    return module.eval(), card
