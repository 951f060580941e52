"""Keys of a batch. Shape, dtype and unit stand beside each key; nothing else defines them."""

from typing import Final

# Float[Tensor, "batch channel *spatial"] | intensities after normalization, axes i j k in RAS+
IMAGE: Final = "image"
# UInt8[Tensor, "batch *spatial"] | label values 0..n, 0 is background
LABEL: Final = "label"
# list[str] | case identifiers, in batch order
CASE: Final = "case"
# Float[Tensor, "batch 1 i j k"] | absorbed dose as a fraction of the contract's prescription
DOSE: Final = "dose"
# Bool[Tensor, "batch i j k"] | where dose may be (OpenKBP), of whole volumes; everywhere where nothing is known
POSSIBLE: Final = "possible"
# Float[Tensor, "batch axis"] | voxel size in mm along i j k, of whole volumes
SPACING: Final = "spacing"
# Float[Tensor, "batch constraint"] | the protocol's limits, see `medexp.metrics.clinical`
CONSTRAINTS: Final = "constraints"
