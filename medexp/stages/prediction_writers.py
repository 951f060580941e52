"""What becomes of a predicted case: a label map, or a dose. A setting that means nothing to it is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from medexp.errors import ConfigurationError
from medexp.inference.cleaning import Cleaning
from medexp.inference.decisions import AnyDecision, Dose
from medexp.inference.dose_writers import DoseFiles
from medexp.inference.ensembling import Combination
from medexp.inference.sliding_window import SlidingWindow
from medexp.inference.writers import NativePrediction, write_prediction
from medexp.io.prepared import StoredCase

Writer = Callable[..., dict[str, Path]]  # takes folder, case, what the models agreed on and their decision


@dataclass(frozen=True)
class LabelWriter:
    """Label maps on the native grid, cleaned; probabilities beside them if asked for."""

    cleaning: Cleaning
    save_probabilities: bool

    def __call__(self, folder: Path, case: StoredCase, joined: Tensor, decision: Any) -> dict[str, Path]:
        """Write the files of one case."""
        keep = self.save_probabilities
        native = NativePrediction.of(joined, case.grid, keep_probabilities=keep, decision=decision)
        return write_prediction(folder, case.case, self.cleaning.of(native))


@dataclass(frozen=True)
class DoseWriter:
    """Doses in Gy, in every format that is asked for; `settings` say in the npz how they were predicted."""

    files: DoseFiles
    settings: Mapping[str, Any]

    def __call__(self, folder: Path, case: StoredCase, joined: Tensor, decision: Dose) -> dict[str, Path]:
        """Write the files of one case."""
        return self.files.write(folder, case, decision.dose_gy(joined).cpu().numpy(), self.settings)


def writer_for(
    decision: AnyDecision,
    *,
    cleaning: Cleaning,
    save_probabilities: bool,
    doses: DoseFiles,
    window: SlidingWindow,
    combination: Combination,
    settings: Mapping[str, Any],
) -> Writer:
    """Return what writes the predictions of such a model.

    Raises:
        ConfigurationError: A setting has no meaning for its predictions; names the key.
    """
    if not isinstance(decision, Dose):
        _require({"copy_identity": (doses.copy_identity, False)}, what="label maps")
        return LabelWriter(cleaning, save_probabilities)
    wanted = {
        "save_probabilities": (save_probabilities, False),
        "min_object_px": (cleaning.min_object_px, 0),
        "fill_holes": (cleaning.fill_holes, False),
        "combination": (combination, "average"),
        "padding": (window.padding, "zeros"),  # around a small patient lies air, far from every structure
    }
    _require(wanted, what="doses")
    return DoseWriter(doses, settings)


def _require(found: Mapping[str, tuple[object, object]], *, what: str) -> None:
    for key, (value, only) in found.items():
        if value != only:
            expected, got = (str(one).lower() if isinstance(one, bool) else one for one in (only, value))
            raise ConfigurationError(f"predict.{key}: expected {expected} for {what}, got {got}")
