"""Voxels of planned patients as tensors: CT and signed distances for a network, dose as a fraction of the prescription.

Only the voxels that a patch shows are read from the mapped files. A patch that is turned reads through the same
four neighbors for CT, distances and dose, so that these stay on each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float32, Num, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from medexp.datasets.buffers import Recycler, empty
from medexp.datasets.loading import Batch, one_thread
from medexp.datasets.mapped import MappedFiles, Slices, covers, filled, overlap
from medexp.datasets.reading import Inputs
from medexp.inference.dose_volumes import mirrored_channels
from medexp.io.prepared import PreparedCohort, StoredCase
from medexp.keys import CASE, CONSTRAINTS, DOSE, IMAGE, POSSIBLE, SPACING
from medexp.sampling.order import SampleKey
from medexp.sampling.patches import AUGMENTATION, POSITION, Positions, generator_of, moved_start
from medexp.transforms.dose_augmentation import DoseAugmentation, DoseDraw
from medexp.transforms.doses import AIR, FAR, add_ct_noise, normalize_ct
from medexp.transforms.in_plane import PlaneTaps, resample_planes
from medexp.transforms.spatial import centered_offset
from medexp.types import DoseContract

Convert = Callable[[Shaped[Tensor, "*region"], Float32[Tensor, "*region"]], None]


class DoseReader:
    """How stored arrays become what a network of doses gets and answers."""

    def __init__(
        self, structure_order: Sequence[int], mirrored_order: Sequence[int], *, prescription_gy: float
    ) -> None:
        """Choose the input.

        Args:
            structure_order: Which stored structure's distance stands at each place after the CT.
            mirrored_order: The same where left and right are exchanged.
            prescription_gy: The dose that is 1.
        """
        self.structure_order, self.mirrored_order = tuple(structure_order), tuple(mirrored_order)
        self.prescription_gy = prescription_gy
        self.files = MappedFiles()

    @classmethod
    def of(cls, cohort: PreparedCohort, contract: DoseContract) -> "DoseReader":
        """Return the reader of a cohort's cases."""
        stored = [cohort.structures.index(name) for name in contract.structures]
        mirrored = [stored[channel - 1] for channel in mirrored_channels(contract)[1:]]
        return cls(stored, mirrored, prescription_gy=contract.prescription_gy)

    @property
    def num_channels(self) -> int:
        """The CT and the structures."""
        return 1 + len(self.structure_order)

    def inputs(self, case: StoredCase) -> Inputs:
        """Return what a network gets of a whole case, planned or not."""
        image = empty((self.num_channels, *case.shape), np.float32)
        self._read_image(case, image, _Copied.whole(case.shape), self.structure_order)
        possible = torch.from_numpy(np.array(case.possible())).bool()
        return {IMAGE: image, CONSTRAINTS: torch.from_numpy(case.constraints), POSSIBLE: possible}

    def whole(self, case: StoredCase) -> Batch:
        """Return a planned case as a batch of one."""
        dose = empty((1, *case.shape), np.float32)
        self._read_dose(case, dose, _Copied.whole(case.shape))
        inputs = {key: value[None] for key, value in self.inputs(case).items()}
        spacing = torch.tensor([case.record["stored_spacing_mm"]], dtype=torch.float32)
        return {**inputs, DOSE: dose[None], SPACING: spacing, CASE: [case.case]}

    def read_patch(
        self,
        case: StoredCase,
        image: Float32[Tensor, "channel i j k"],
        dose: Float32[Tensor, "1 i j k"],
        *,
        start: Sequence[int],
        draw: DoseDraw,
    ) -> None:
        """Fill `image` and `dose` with the patch that begins at `start`, changed as `draw` says.

        It overlaps the volume; beyond that lie air, no structure and no dose.
        """
        size = (dose.shape[1], dose.shape[2], dose.shape[3])
        spread = _Copied if draw.angle_deg is None else _Turned
        way = spread.of(case, start=start, size=size, draw=draw)
        self._read_image(case, image, way, self.mirrored_order if draw.is_mirrored else self.structure_order)
        self._read_dose(case, dose, way)
        if draw.noise is not None:
            add_ct_noise(image[0], deviation=draw.noise, seed=draw.noise_seed)

    def _read_image(
        self, case: StoredCase, image: Float32[Tensor, "channel i j k"], way: "_Way", order: Sequence[int]
    ) -> None:
        stored = self.files.array(case.folder / "image.npy", case.image)
        way.fill(image[0], stored[0], convert=normalize_ct, outside=AIR)
        distances = self.files.array(case.folder / "distances.npy", case.distances)
        for target, index in zip(image[1:], order, strict=True):
            way.fill(target, distances[index], convert=_as_it_is, outside=FAR)

    def _read_dose(self, case: StoredCase, dose: Float32[Tensor, "1 i j k"], way: "_Way") -> None:
        stored = self.files.array(case.folder / "dose.npy", case.dose)
        way.fill(dose[0], stored[0], convert=self._as_fraction, outside=0.0)

    def _as_fraction(self, dose_gy: Float32[Tensor, "*region"], out: Float32[Tensor, "*region"]) -> None:
        torch.div(dose_gy, self.prescription_gy, out=out)


def _as_it_is(stored: Shaped[Tensor, "*region"], out: Float32[Tensor, "*region"]) -> None:
    out.copy_(stored)


class _Way(Protocol):
    """How the voxels of a volume come to those of a patch, the same for every array of a case."""

    def fill(
        self, out: Float32[Tensor, "i j k"], stored: Num[np.ndarray, "a b c"], *, convert: Convert, outside: float
    ) -> None:
        """Fill one channel of a patch; `convert` takes stored values to a network's, `outside` lies around them."""
        ...


@dataclass(frozen=True, eq=False)
class _Copied:
    """Voxel by voxel, possibly mirrored."""

    source: Slices
    target: Slices
    flips: tuple[int, ...] = ()

    @classmethod
    def whole(cls, shape: Sequence[int]) -> "_Copied":
        everything = tuple(slice(0, length) for length in shape)
        return cls(everything, everything)

    @classmethod
    def of(cls, case: StoredCase, *, start: Sequence[int], size: Sequence[int], draw: DoseDraw) -> "_Copied":
        return cls(*overlap(start, shape=case.shape, size=size, flips=draw.flips), draw.flips)

    def fill(
        self, out: Float32[Tensor, "i j k"], stored: Num[np.ndarray, "a b c"], *, convert: Convert, outside: float
    ) -> None:
        if not covers(self.target, out.shape):
            out.fill_(outside)
        found = stored[self.source]
        convert(filled(np.empty(found.shape, found.dtype), found, self.flips), out[self.target])


@dataclass(frozen=True, eq=False)
class _Turned:
    """By linear interpolation in the planes of i and j; along k voxel by voxel."""

    taps: PlaneTaps
    source: Slices
    slices: slice
    values: Float32[Tensor, "a b c"]

    @classmethod
    def of(cls, case: StoredCase, *, start: Sequence[int], size: tuple[int, int, int], draw: DoseDraw) -> "_Turned":
        matrix = draw.in_plane(case.record["stored_spacing_mm"])
        offset = centered_offset(matrix, start=start[:2], size=size[:2])
        taps = PlaneTaps.of(matrix, offset, size=size[:2], shape=case.shape[:2])
        (along,), (slices,) = overlap(start[2:], shape=case.shape[2:], size=size[2:])
        source = (*(slice(first, stop) for first, stop in taps.box), along)
        return cls(taps, source, slices, empty((*taps.box_shape, along.stop - along.start), np.float32))

    def fill(
        self, out: Float32[Tensor, "i j k"], stored: Num[np.ndarray, "a b c"], *, convert: Convert, outside: float
    ) -> None:
        found = stored[self.source]
        convert(filled(np.empty(found.shape, found.dtype), found), self.values)
        if not covers((self.slices,), out.shape[2:]):
            out.fill_(outside)
        resample_planes(self.values, out[:, :, self.slices], self.taps, outside=outside)


@dataclass(frozen=True, eq=False)
class DosePatches(Dataset[Batch]):
    """Patches of planned patients, by their samples' keys."""

    cases: tuple[StoredCase, ...]
    reader: DoseReader
    augmentation: DoseAugmentation
    patch_size: tuple[int, ...]
    positions: Positions
    seed: int
    memory: Recycler = field(default_factory=Recycler, repr=False)

    def __getitems__(self, keys: Sequence[SampleKey]) -> Batch:
        """Return a whole batch. PyTorch calls this with what the batch sampler gave."""
        image = self.memory.lend((len(keys), self.reader.num_channels, *self.patch_size))
        dose = self.memory.lend((len(keys), 1, *self.patch_size))
        cases = [self.cases[key.case] for key in keys]
        with one_thread():
            for row, (key, case) in enumerate(zip(keys, cases, strict=True)):
                self.reader.read_patch(case, image[row], dose[row], start=self.start(key), draw=self.draw(key))
        constraints = torch.from_numpy(np.stack([case.constraints for case in cases]))
        return {IMAGE: image, DOSE: dose, CONSTRAINTS: constraints, CASE: [case.case for case in cases]}

    def start(self, key: SampleKey) -> tuple[int, ...]:
        """Return the first voxel of a sample's patch, moved as its draw says."""
        generator = generator_of(POSITION, seed=self.seed, epoch=key.epoch, index=key.index)
        case = self.cases[key.case]
        start = self.positions.start(generator, case, patch_size=self.patch_size)
        return moved_start(start, self.draw(key).shift_voxels, shape=case.shape, patch_size=self.patch_size)

    def draw(self, key: SampleKey) -> DoseDraw:
        """Return what happens to a sample's patch."""
        return self.augmentation.draw(generator_of(AUGMENTATION, seed=self.seed, epoch=key.epoch, index=key.index))
