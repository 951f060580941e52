"""Records that the parts of medexp hand to each other. No heavy import: configuration is checked with these."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

# Ranges that configuration is checked for (`medexp.composition.limits`); to Python they are plain numbers.
Count = Annotated[int, ">= 1"]
Index = Annotated[int, ">= 0"]
Amount = Annotated[float, ">= 0"]
Positive = Annotated[float, "> 0"]
Share = Annotated[float, ">= 0", "<= 1"]
PartialShare = Annotated[float, ">= 0", "< 1"]


@dataclass(frozen=True)
class Plan:
    """What a cohort's fingerprint says about a network that fits it.

    `strides[0]` and the first kernel belong to the full-resolution level, whose stride is 1.
    """

    spacing_mm: tuple[float, ...]
    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Plan":
        """Read what `to_json` wrote."""
        return cls(
            spacing_mm=tuple(float(value) for value in record["spacing_mm"]),
            patch_size=tuple(int(value) for value in record["patch_size"]),
            strides=tuple(tuple(int(value) for value in level) for level in record["strides"]),
            kernel_sizes=tuple(tuple(int(value) for value in level) for level in record["kernel_sizes"]),
        )


@dataclass(frozen=True)
class DataContract:
    """What a dataset promises and a model is completed with: names in order, never positions alone.

    `labels` holds the foreground only, with the consecutive values 1..n; 0 is background.
    `regions` names unions of labels. `label_weights` may name "background"; a name left out weighs 1.
    """

    name: str
    channels: tuple[str, ...]
    labels: Mapping[str, int]
    regions: Mapping[str, tuple[str, ...]]
    label_weights: Mapping[str, float]
    plan: Plan
    patch_size: tuple[int, ...]

    @property
    def num_labels(self) -> int:
        """Return the number of outputs of a network: the labels and the background."""
        return len(self.labels) + 1

    def region_values(self) -> dict[str, tuple[int, ...]]:
        """Return each region as the label values that form it."""
        return {name: tuple(self.labels[label] for label in members) for name, members in self.regions.items()}

    def ordered_label_weights(self) -> tuple[float, ...]:
        """Return the weights in the order of the network's outputs, background first."""
        names = ("background", *sorted(self.labels, key=lambda label: self.labels[label]))
        return tuple(float(self.label_weights.get(name, 1.0)) for name in names)


@dataclass(frozen=True)
class DoseContract:
    """What a dataset of doses promises and a model is completed with.

    `channels` are "ct" and the structures whose signed distances follow it, in order. `targets` gives the prescribed
    dose of each PTV, `mirrored` the pairs of structures that a left-right flip exchanges. Dose inside a network is
    a fraction of `prescription_gy`; a distance of 1 is `distance_clip_mm`, negative inside.
    """

    name: str
    structures: tuple[str, ...]
    targets: Mapping[str, float]
    mirrored: tuple[tuple[str, str], ...]
    num_constraints: int
    prescription_gy: float
    distance_clip_mm: float
    plan: Plan
    patch_size: tuple[int, ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the input channels in order: the CT, then a distance per structure."""
        return ("ct", *self.structures)

    def channel_of(self, structure: str) -> int:
        """Return the input channel that holds the signed distance of a structure."""
        return 1 + self.structures.index(structure)
