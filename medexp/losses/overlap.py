"""Losses that compare a soft segmentation with labels by their overlap."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from medexp.errors import ConfigurationError
from medexp.losses.ranks import mean_over_ranks, mean_over_samples
from medexp.types import Amount


class _WeightedSum(nn.Module):
    """What the losses of Dice and cross-entropy are built with: their shares and the weights of labels."""

    label_weights: Tensor | None

    def __init__(
        self,
        *,
        dice_weight: Amount,
        cross_entropy_weight: Amount,
        smooth: Amount,
        label_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _check_weights("model.loss", (dice_weight, cross_entropy_weight))
        if label_weights is not None:
            _check_weights("dataset.label_weights", label_weights)
        self.dice_weight = dice_weight
        self.cross_entropy_weight = cross_entropy_weight
        self.smooth = smooth
        weights = None if label_weights is None else torch.tensor(label_weights, dtype=torch.float32)
        self.register_buffer("label_weights", weights, persistent=False)


class DiceCrossEntropy(_WeightedSum):
    """Soft Dice loss plus cross-entropy over mutually exclusive labels, background included.

    The Dice loss is taken per example and label, weighted by label, then averaged over both. The cross-entropy is
    the mean over voxels, each weighted by its label. Both are computed in float32, whatever the precision around
    them. No one-hot copy of the target is made. Where several ranks train together, both are their parts of the mean
    over the global batch.

    Args:
        dice_weight: Share of the Dice loss.
        cross_entropy_weight: Share of the cross-entropy.
        smooth: Added to numerator and denominator of the Dice score; a label absent from both then scores 1.
        label_weights: One weight per label, background first; None weighs all alike.

    Raises:
        ConfigurationError: A weight is negative, or all are zero.

    Source:
        `monai.losses.DiceCELoss(softmax=True, to_onehot_y=True)`; agrees to 1e-6 (tests/losses/test_overlap.py).
    """

    def forward(
        self, logits: Float[Tensor, "batch label *spatial"], target: Integer[Tensor, "batch *spatial"]
    ) -> Float[Tensor, ""]:
        """Return the loss; `target` holds label values, each below the number of labels."""
        with torch.autocast(logits.device.type, enabled=False):
            log_probabilities = torch.log_softmax(logits.flatten(2).float(), dim=1)  # batch label voxel
            target = target.flatten(1)  # batch voxel
            log_target = log_probabilities.gather(1, target.long().unsqueeze(1)).squeeze(1)  # batch voxel
            masks = [target == label for label in range(logits.shape[1])]
            sizes = torch.stack([mask.sum(1) for mask in masks], dim=1).float()  # batch label
            dice = self._dice_loss(log_probabilities.exp().sum(2), _sums_inside(log_target.exp(), masks), sizes)
            return self.dice_weight * dice + self.cross_entropy_weight * self._cross_entropy(
                _sums_inside(log_target, masks), sizes
            )

    def _dice_loss(
        self,
        predicted: Float[Tensor, "batch label"],
        overlap: Float[Tensor, "batch label"],
        sizes: Float[Tensor, "batch label"],
    ) -> Float[Tensor, ""]:
        loss = 1 - (2 * overlap + self.smooth) / (predicted + sizes + self.smooth)
        return mean_over_samples(loss if self.label_weights is None else loss * self.label_weights)

    def _cross_entropy(
        self, log_sums: Float[Tensor, "batch label"], sizes: Float[Tensor, "batch label"]
    ) -> Float[Tensor, ""]:
        weights = torch.ones_like(sizes[0]) if self.label_weights is None else self.label_weights
        total = mean_over_ranks((weights * sizes).sum())
        return -(weights * log_sums).sum() / total.clamp_min(torch.finfo(torch.float32).tiny)


class DiceBinaryCrossEntropy(_WeightedSum):
    """Soft Dice loss plus binary cross-entropy of one label, from one logit per voxel.

    The Dice loss is taken per example, then averaged. The cross-entropy is the mean over voxels, each weighted by its
    label. Both are computed in float32, whatever the precision around them. Where several ranks train together, both
    are their parts of the mean over the global batch.

    Args:
        dice_weight: Share of the Dice loss.
        cross_entropy_weight: Share of the cross-entropy.
        smooth: Added to numerator and denominator of the Dice score; an example without the label, in which nothing is
            predicted, then scores 1.
        label_weights: Of the background and of the label; None weighs both alike.

    Raises:
        ConfigurationError: A weight is negative, or all are zero.

    Source:
        `monai.losses.DiceLoss(sigmoid=True)` and `torch.nn.BCEWithLogitsLoss`; agrees to 1e-6
        (tests/losses/test_overlap.py).
    """

    def forward(
        self, logits: Float[Tensor, "batch 1 *spatial"], target: Integer[Tensor, "batch *spatial"]
    ) -> Float[Tensor, ""]:
        """Return the loss; `target` is 1 where the label is and 0 elsewhere."""
        with torch.autocast(logits.device.type, enabled=False):
            logit, mask = logits.flatten(1).float(), target.flatten(1).float()  # batch voxel
            probability = logit.sigmoid()
            overlap, size = (probability * mask).sum(1), probability.sum(1) + mask.sum(1)
            dice = 1 - (2 * overlap + self.smooth) / (size + self.smooth)
            weights = (
                None if self.label_weights is None else torch.lerp(self.label_weights[0], self.label_weights[1], mask)
            )
            entropy = binary_cross_entropy_with_logits(logit, mask, weight=weights, reduction="sum")
            count = mean_over_ranks(torch.full_like(mask, 1.0).sum() if weights is None else weights.sum())
            return self.dice_weight * mean_over_samples(dice[:, None]) + self.cross_entropy_weight * entropy / count


def _sums_inside(
    values: Float[Tensor, "batch voxel"], masks: list[Bool[Tensor, "batch voxel"]]
) -> Float[Tensor, "batch label"]:
    """Return the sum over the voxels of each label; `where` keeps it deterministic on every device."""
    return torch.stack([torch.where(mask, values, 0.0).sum(1) for mask in masks], dim=1)


def _check_weights(key: str, weights: Sequence[float]) -> None:
    if min(weights) < 0 or max(weights) == 0:
        raise ConfigurationError(
            f"{key}: expected weights of which none is negative and one is positive, got {weights}"
        )
