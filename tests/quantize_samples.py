"""Plain coloured crops and small networks whose correct outputs are known without training."""

import numpy as np
import torch
from torch import nn

from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess
from edge.types import Image
from quantize.network_spec import Spec

CATEGORIES = ("box", "can")
ITEMS_OF = {"box": ("red", "green", "blue"), "can": ("yellow", "cyan", "violet")}
COLOUR = {
    "red": (200, 40, 40),
    "green": (40, 190, 40),
    "blue": (40, 40, 210),
    "yellow": (210, 200, 30),
    "cyan": (30, 200, 200),
    "violet": (190, 40, 200),
}
SIZE = 32


def crop_of(item: str, seed: int) -> Image:
    """A noisy plain colour."""
    noise = np.random.default_rng(seed).normal(0, 14, (SIZE, SIZE, 3))
    return np.clip(np.asarray(COLOUR[item]) + noise, 0, 255).astype(np.uint8)


def preprocess(mean: float = 128 / 255, std: float = 0.25, width: int = SIZE, height: int = SIZE) -> Preprocess:
    return Preprocess(width=width, height=height, resize="letterbox", mean=(mean,) * 3, std=(std,) * 3)


class Trunk(nn.Sequential):
    """Six convolutions, one of them depthwise, with ReLU."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
        )


class Pooled(nn.Module):
    """Trunk, mean, linear; unit rows when it embeds."""

    def __init__(self, outputs: int, unit: bool) -> None:
        super().__init__()
        self.trunk, self.linear, self.unit = Trunk(), nn.Linear(16, outputs), unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(self.trunk(x).mean(dim=(2, 3)))
        return nn.functional.normalize(y, dim=1) if self.unit else y


class TinyDetector(nn.Module):
    """One stride; the score of a cell is its brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.boxes, self.scores = Trunk(), nn.Conv2d(16, 4, 1), nn.Conv2d(16, 1, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        y = self.trunk(x)
        return [torch.cat([torch.relu(self.boxes(y)), self.scores(y)], dim=1)]


class TinyLocaliser(nn.Module):
    """The object mask: cells whose colour channels differ."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 1, 1)
        with torch.no_grad():
            self.first.weight.zero_()
            self.first.bias.zero_()
            for channel, (plus, minus) in enumerate([(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)]):
                self.first.weight[channel, plus, 1, 1], self.first.weight[channel, minus, 1, 1] = 1.0, -1.0
            self.second.weight.fill_(4.0)
            self.second.bias.fill_(-6.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


class Described(nn.Module):
    """A classifier whose pooled trunk is the descriptor of a crop."""

    def __init__(self, classifier: Pooled) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.classifier.trunk(x).mean(dim=(2, 3))
        return self.classifier.linear(pooled), pooled


def network(kind: str) -> tuple[nn.Module, Spec]:
    """Return a network and its spec; the last layer is fitted to the colours in closed form."""
    torch.manual_seed(3)
    if kind == "detector":
        spec = Spec(
            kind="detector",
            output_names=["stride_4"],
            preprocess=preprocess(width=64, height=48),
            strides=[4],
            labels=["object"],
            score_threshold=0.5,
        )
        return TinyDetector().eval(), spec
    if kind == "classifier":
        net = Pooled(len(CATEGORIES), unit=False).eval()
        fit(net, by_item=False)
        return net, Spec(kind="classifier", output_names=["logits"], preprocess=preprocess(), labels=list(CATEGORIES))
    if kind == "describing":
        net, spec = network("classifier")
        return Described(net).eval(), spec.model_copy(
            update={"output_names": ["logits", "descriptor"], "descriptor_dim": 16}
        )
    if kind == "localiser":
        spec = Spec(kind="localiser", output_names=["mask"], preprocess=preprocess(), strides=[2])
        return TinyLocaliser().eval(), spec
    net = Pooled(8, unit=True).eval()
    fit(net, by_item=True)
    spec = Spec(
        kind="embedder",
        output_names=["embedding"],
        preprocess=preprocess(),
        categories=list(CATEGORIES),
        heads=[Head(name="class", dim=8)],
    )
    return net, spec


def fit(net: Pooled, by_item: bool) -> None:
    """Fit the last layer to the items or the categories by least squares, with targets of plus and minus 6."""
    rows, targets = [], []
    items = [item for category in CATEGORIES for item in ITEMS_OF[category]]
    for index, item in enumerate(items):
        for seed in range(6):
            pixels = torch.from_numpy(crop_of(item, seed + 900)).permute(2, 0, 1)[None].float()
            with torch.no_grad():
                rows.append(net.trunk((pixels / 255 - 128 / 255) / 0.25).mean(dim=(2, 3))[0])
            wanted = index if by_item else next(n for n, c in enumerate(CATEGORIES) if item in ITEMS_OF[c])
            targets.append([6.0 if i == wanted else -6.0 for i in range(net.linear.out_features)])
    features = torch.cat([torch.stack(rows), torch.ones(len(rows), 1)], dim=1)
    solution = torch.linalg.lstsq(features, torch.tensor(targets), driver="gelsd").solution
    with torch.no_grad():
        net.linear.weight.copy_(solution[:-1].T)
        net.linear.bias.copy_(solution[-1])
