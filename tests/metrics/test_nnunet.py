import json
import math

import numpy as np
import pytest

from medexp.errors import CohortError
from medexp.metrics.nnunet import ScoredFiles, nnunet_summary
from medexp.metrics.segmentation import score_case


def case(prediction, reference, name, labels=("NETC", "SNFH")):
    maps = [np.array(values, dtype=np.uint8).reshape(1, 2, 3) for values in (prediction, reference)]
    values = {name: index for index, name in enumerate(labels, start=1)}
    scores = score_case(*maps, (1.0, 1.0, 1.0), values, {"both": list(labels)}, [1.0])
    return ScoredFiles(scores, f"predictions/{name}.nii.gz", f"references/{name}.nii.gz")


CASES = [case([1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0], "a"), case([1, 2, 0, 0, 0, 0], [1, 2, 2, 0, 0, 0], "b")]


def test_the_file_has_nnunets_shape():
    summary = json.loads(json.dumps(nnunet_summary(CASES)))
    assert set(summary) == {"foreground_mean", "mean", "metric_per_case"}
    assert list(summary["mean"]) == ["1", "2", "(1, 2)"]
    first = summary["metric_per_case"][0]
    assert first["prediction_file"] == "predictions/a.nii.gz"
    assert first["reference_file"] == "references/a.nii.gz"
    assert first["metrics"]["1"] == {
        "Dice": 0.5,
        "IoU": pytest.approx(1 / 3),
        "TP": 1,
        "FP": 1,
        "FN": 1,
        "TN": 3,
        "n_pred": 2,
        "n_ref": 2,
    }


def test_a_label_in_neither_file_is_nan_in_the_case_and_left_out_of_the_mean():
    summary = nnunet_summary(CASES)
    assert math.isnan(summary["metric_per_case"][0]["metrics"]["2"]["Dice"])
    assert summary["mean"]["2"]["Dice"] == pytest.approx(2 / 3)
    assert summary["mean"]["1"]["Dice"] == pytest.approx((0.5 + 1.0) / 2)
    assert summary["mean"]["1"]["n_ref"] == 1.5
    expected = (summary["mean"]["1"]["Dice"] + summary["mean"]["2"]["Dice"] + summary["mean"]["(1, 2)"]["Dice"]) / 3
    assert summary["foreground_mean"]["Dice"] == pytest.approx(expected)


def test_a_label_in_no_case_makes_the_foreground_mean_undefined():
    summary = nnunet_summary(CASES[:1])
    assert math.isnan(summary["mean"]["2"]["Dice"])
    assert math.isnan(summary["foreground_mean"]["Dice"])


def test_cases_scored_for_other_labels_are_refused():
    with pytest.raises(CohortError, match="same labels in all"):
        nnunet_summary([*CASES, case([1] * 6, [1] * 6, "c", labels=("NETC",))])
    with pytest.raises(CohortError, match="0 cases"):
        nnunet_summary([])
