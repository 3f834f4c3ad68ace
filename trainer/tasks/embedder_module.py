"""What an embedder's training optimises: the embedder, and the parts that only the losses need."""

from __future__ import annotations

from torch import nn

from trainer.embedder_recipe import EmbedderRecipe
from trainer.losses.embedding_losses import CosineSoftmax
from trainer.losses.metric_losses import CentreLoss, MetricLoss, metric_loss
from trainer.models.networks import Embedder


class TrainingModule(nn.Module):
    """The embedder, and parts for training only: item centres of each head, a projection to the teacher."""

    def __init__(self, model: Embedder, items: int, recipe: EmbedderRecipe, teacher_dim: int) -> None:
        super().__init__()
        self.model = model
        # Heads that are summed share their centres, so that each points in the direction of the sum.
        dims = model.part_dims
        joint = sum(dims.values())
        plain = recipe.loss == "softmax"
        self.anchors = nn.ModuleDict(
            {f"{name}_anchor": _softmax(recipe, dim, items) for name, dim in dims.items()} if plain else {}
        )
        self.metric_loss: MetricLoss | None = None if plain else metric_loss(recipe.loss, joint, items, recipe.margin)
        self.to_teacher = nn.Linear(joint, teacher_dim, bias=False) if teacher_dim else nn.Identity()

    def anchor_of(self, head: str) -> CosineSoftmax:
        """Return the centres of a head."""
        anchor: CosineSoftmax = self.anchors["joint_anchor" if "joint_anchor" in self.anchors else f"{head}_anchor"]
        return anchor

    @property
    def centres(self) -> dict[str, nn.Parameter]:
        """Return the item centres (items, dim) by the name of the part of the joint vector; none for some losses."""
        if isinstance(self.metric_loss, CentreLoss):
            (part,) = self.model.part_dims
            return {part: self.metric_loss.centres}
        return {name.removesuffix("_anchor"): anchor.centres for name, anchor in self.anchors.items()}


def _softmax(recipe: EmbedderRecipe, dim: int, items: int) -> CosineSoftmax:
    return CosineSoftmax(
        dim,
        items,
        recipe.scale,
        recipe.decorrelation,
        recipe.shorter_dims,
        recipe.label_smoothing,
        recipe.dropout,
    )
