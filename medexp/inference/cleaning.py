"""What is done to a predicted mask of an image before it is written: small objects go, holes are filled."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from medexp.errors import ConfigurationError
from medexp.inference.writers import NativePrediction
from medexp.metrics.object_labels import ObjectRule, cleaned
from medexp.types import Index


@dataclass(frozen=True)
class Cleaning:
    """Of images only; probabilities stay as they are.

    Attributes:
        min_object_px: Objects of fewer pixels are removed; 0: none.
        fill_holes: Whether what an object encloses becomes part of it.
    """

    min_object_px: Index
    fill_holes: bool

    def of(self, prediction: NativePrediction) -> NativePrediction:
        """Return the prediction with its label map cleaned, kind by kind; no kind takes a pixel of another.

        Raises:
            ConfigurationError: It is asked for with a volume.
        """
        if self.min_object_px == 0 and not self.fill_holes:
            return prediction
        if prediction.label.ndim != 2:
            message = "predict.min_object_px and predict.fill_holes: expected 0 and false with volumes"
            raise ConfigurationError(f"{message}, got {self.min_object_px} and {str(self.fill_holes).lower()}")
        return replace(prediction, label=self._cleaned(prediction.label))

    def _cleaned(self, label: UInt8[np.ndarray, "row column"]) -> UInt8[np.ndarray, "row column"]:
        rule = ObjectRule(self.min_object_px, self.fill_holes, split_touching=False, split_depth_px=1.0)
        result = np.zeros_like(label)
        for value in np.unique(label[label > 0]):
            own = label == value
            result[cleaned(own, rule) & (own | (label == 0))] = value
        return result
