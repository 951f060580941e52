"""Losses of a predicted dose, and the sum of several that an experiment is trained on.

Every term takes the predicted and the planned dose as fractions of the prescription and the network's input, from
whose signed distances it knows where structures are. Terms are zero where both doses agree and none is negative.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv3d

from medexp.errors import ConfigurationError
from medexp.losses.structures import exact, inside_any, mean_of_all, mean_where, near_surface, organs_of, targets_of
from medexp.types import Amount, DoseContract, Share


class DoseLoss(nn.Module):
    """Several terms, weighed by one rule.

    All its parameters are the rule's; there are none but for `UncertaintyWeights`. Train them without weight decay.

    Args:
        contract: What the dataset promises.
        terms: By name; each takes `contract`.
        combine: The rule; takes the terms' `names` (`medexp.losses.weighting`).

    Raises:
        ConfigurationError: There is no term, or terms and rule do not agree.
    """

    def __init__(
        self,
        *,
        contract: DoseContract,
        terms: Mapping[str, Callable[..., nn.Module]],
        combine: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        if not terms:
            raise ConfigurationError("model.loss.terms: expected at least one term, got none")
        self.terms = nn.ModuleDict({name: term(contract=contract) for name, term in terms.items()})
        self.weigh = combine(names=tuple(terms))

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> Float[Tensor, ""]:
        """Return the weighted sum."""
        return self.combine(self.parts(prediction, target, image))

    def parts(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> dict[str, Tensor]:
        """Return each term's value by its name, unweighted, for the log; no autocast lowers their precision."""
        with torch.autocast(prediction.device.type, enabled=False):
            return {name: term(prediction, target, image) for name, term in self.terms.items()}

    def combine(self, parts: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the weighted sum of what `parts` returned."""
        return self.weigh(parts)


class SquaredError(nn.Module):
    """Mean squared error, and a penalty on negative dose.

    Args:
        contract: Not looked at; every term takes it.
        negative_dose_weight: Of the mean of negative dose.
    """

    def __init__(self, *, contract: DoseContract, negative_dose_weight: Amount) -> None:
        super().__init__()
        self.negative_dose_weight = negative_dose_weight

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> Float[Tensor, ""]:
        """Return the loss."""
        predicted = exact(prediction)
        error = mean_of_all((predicted - exact(target)).square())
        return error + self.negative_dose_weight * mean_of_all((-predicted).relu())


class AbsoluteError(nn.Module):
    """Weighted mean absolute error, which OpenKBP's dose score is made of, and a penalty on negative dose.

    The slope of an absolute error does not fall with the error: where most of a patch is air, air would decide where a
    network goes. Voxels without any planned dose may therefore count less.

    Args:
        contract: Not looked at; every term takes it.
        negative_dose_weight: Of the mean of negative dose.
        no_dose_weight: Of a voxel without planned dose; one with dose weighs 1.
    """

    def __init__(self, *, contract: DoseContract, negative_dose_weight: Amount, no_dose_weight: Share) -> None:
        super().__init__()
        self.negative_dose_weight, self.no_dose_weight = negative_dose_weight, no_dose_weight

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> Float[Tensor, ""]:
        """Return the loss."""
        predicted, planned = exact(prediction), exact(target)
        weights = torch.where(planned > 0, 1.0, self.no_dose_weight).to(predicted.dtype)
        error = (weights * (predicted - planned).abs()).sum() / weights.sum().clamp_min(1.0)
        return error + self.negative_dose_weight * mean_of_all((-predicted).relu())


class GradientError(nn.Module):
    """Mean absolute difference of the two doses' gradients along i, j and k, per voxel, by 3D Sobel filters.

    The filters are scaled so that a dose rising by 1 per voxel has the gradient 1; voxels on the patch's faces,
    whose neighbors are not known, are left out. Of a patch less than three voxels wide nothing is left: 0.
    """

    kernels: Tensor

    def __init__(self, *, contract: DoseContract) -> None:
        super().__init__()
        smooth, slope = torch.tensor([0.25, 0.5, 0.25]), torch.tensor([-0.5, 0.0, 0.5])
        axes = [[slope if axis == along else smooth for axis in range(3)] for along in range(3)]
        kernels = torch.stack([torch.einsum("i,j,k->ijk", *factors) for factors in axes])
        self.register_buffer("kernels", kernels.unsqueeze(1), persistent=False)  # axis 1 i j k

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> Float[Tensor, ""]:
        """Return the loss."""
        error = (exact(prediction) - exact(target)).unsqueeze(1)  # the filters are linear: one pass for both
        if min(error.shape[2:]) < 3:
            return 0.0 * error.sum()
        return mean_of_all(conv3d(error, self.kernels.to(error.dtype)).abs())


class StructureWeightedError(nn.Module):
    """Mean squared error in which each voxel weighs what its place is worth.

    Where several hold, the target counts before the boundary. The mean is over all voxels, not over weights, so
    that a patch with targets counts more than one without.

    Args:
        contract: Says which structures are targets; all others are organs.
        target_weight: Of voxels in targets.
        boundary_weight: Of voxels near the surface of an organ.
        background_weight: Of all others, the inside of organs included.
        margin_mm: What is near.
    """

    def __init__(
        self,
        *,
        contract: DoseContract,
        target_weight: Amount,
        boundary_weight: Amount,
        background_weight: Amount,
        margin_mm: Amount,
    ) -> None:
        super().__init__()
        self.contract = contract
        self.target_weight, self.boundary_weight = target_weight, boundary_weight
        self.background_weight, self.margin_mm = background_weight, margin_mm

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> Float[Tensor, ""]:
        """Return the loss."""
        error = (exact(prediction) - exact(target)).square()
        return mean_of_all(error * self.weights(image).to(error.dtype))

    def weights(self, image: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch i j k"]:
        """Return what each voxel weighs."""
        weights = torch.full_like(image[:, 0], self.background_weight)
        for organ in organs_of(self.contract):
            near = near_surface(image, self.contract, organ, margin_mm=self.margin_mm)
            weights.masked_fill_(near, self.boundary_weight)
        return weights.masked_fill_(inside_any(image, self.contract, targets_of(self.contract)), self.target_weight)


class AsymmetricTargetError(nn.Module):
    """Mean squared error inside the targets, where too little dose weighs more than too much.

    Args:
        contract: Says which structures are targets.
        under_dose_weight: Of voxels that get less than planned.
        over_dose_weight: Of voxels that get more than planned.
    """

    def __init__(self, *, contract: DoseContract, under_dose_weight: Amount, over_dose_weight: Amount) -> None:
        super().__init__()
        self.contract = contract
        self.under_dose_weight, self.over_dose_weight = under_dose_weight, over_dose_weight

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> Float[Tensor, ""]:
        """Return the loss; 0 for a batch without targets."""
        error = exact(prediction) - exact(target)
        weighted = self.under_dose_weight * (-error).relu().square() + self.over_dose_weight * error.relu().square()
        return mean_where(weighted, inside_any(image, self.contract, targets_of(self.contract)))
