"""Bring dose into the range that noise of unit variance suits."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from medexp.errors import ConfigurationError
from medexp.types import Positive


@dataclass(frozen=True)
class DoseScale:
    """A dose as a fraction of the prescription, seen from `center` in units of `half_width`.

    With center and half-width 0.6, doses of 0 to 1.2 fill -1 to 1; center 0 and half-width 1 change nothing.

    Raises:
        ConfigurationError: The half-width is not positive.
    """

    center: float
    half_width: Positive

    def __post_init__(self) -> None:
        if self.half_width <= 0:
            raise ConfigurationError(f"model.scale.half_width: expected more than 0, got {self.half_width}")

    def encode(self, dose: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return a dose in the network's scale."""
        return (dose - self.center) / self.half_width

    def decode(self, scaled: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return a dose as a fraction of the prescription."""
        return scaled * self.half_width + self.center
