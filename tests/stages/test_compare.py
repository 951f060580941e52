"""Comparison: numbers by hand from the per-case tables, every missing case named, every mismatch refused."""

import csv
import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from medexp.composition import compose
from medexp.errors import CheckpointMismatchError, CohortError, ConfigurationError, UnknownOptionError
from medexp.io.tables import read_table
from medexp.stages.compared_groups import differing_keys
from medexp.stages.comparison_tables import PAIR_COLUMNS
from tests.synthetic.comparisons import compared, evaluation

A = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.95}
B = {"a": 0.85, "b": 0.82, "c": 0.6, "d": 0.85}


@pytest.fixture
def two(tmp_path):
    """Two models on the same four cases in two folds of two cases each."""
    return [
        evaluation(tmp_path, {case: scores[case] for case in cases}, model=model, fold=fold)
        for model, scores in (("first", A), ("second", B))
        for fold, cases in enumerate(("ab", "cd"))
    ]


def table(result, name):
    return read_table(result.outputs[name])


def row(result, name, **wanted):
    [found] = [one for one in table(result, name) if all(one[key] == value for key, value in wanted.items())]
    return found


def numbers(found, *keys):
    return [float(found[key]) for key in keys]


def test_keys_differ_by_their_values_however_deep():
    one = {"model": {"rates": [{"lr": 0.1}, {"lr": 0.2}]}, "pairs": [{"image": "a"}], "fold": 0}
    assert differing_keys([one, {**one, "pairs": [{"image": "a"}]}]) == []
    assert differing_keys([one, {**one, "pairs": ({"image": "b"},)}]) == ["pairs"]
    assert differing_keys([one, {**one, "model": {"rates": [{"lr": 0.1}]}}]) == ["model"]


def test_means_over_folds_by_hand(two, tmp_path):
    _, result = compared(tmp_path, two)
    found = row(result, "groups", group="first")
    # Fold means 0.85 and 0.825.
    sd = 0.025 / math.sqrt(2)
    half = stats.t.ppf(0.975, 1) * sd / math.sqrt(2)
    expected = [0.8375, sd, 2, 0.8375 - half, 0.8375 + half]
    keys = ("mean_over_runs", "sd_over_runs", "n_runs", "ci_low_over_runs", "ci_high_over_runs")
    assert numbers(found, *keys) == pytest.approx(expected)
    assert numbers(found, "mean_over_cases", "n_cases", "rank") == pytest.approx([0.8375, 4, 1])


def test_paired_differences_by_hand(two, tmp_path):
    _, result = compared(tmp_path, two)
    [found] = table(result, "pairs")
    differences = [0.05, -0.02, 0.1, 0.1]
    assert (found["first"], found["second"], found["n_cases"]) == ("first", "second", "4")
    assert float(found["mean_difference"]) == pytest.approx(0.0575)
    assert float(found["p_wilcoxon"]) == pytest.approx(stats.wilcoxon(np.round(differences, 12)).pvalue)
    # Ranks 2, -1, 3.5, 3.5 of ten.
    assert float(found["rank_biserial"]) == pytest.approx((2 - 1 + 3.5 + 3.5) / 10)
    assert float(found["cohen_dz"]) == pytest.approx(0.0575 / np.std(differences, ddof=1))
    assert float(found["p_holm"]) == float(found["p_wilcoxon"])


def test_all_numbers_equal_those_from_the_tables(tmp_path):
    """Three models, two seeds, three folds, two visits per patient: once more, from the CSV files, another way."""
    rng = np.random.default_rng(0)
    patients = {f"c{number}": f"p{number // 2}" for number in range(18)}
    runs = []
    for model, shift in (("m1", 0.0), ("m2", 0.05), ("m3", 0.01)):
        for fold in range(3):
            for seed in (0, 1):
                cases = [f"c{number}" for number in range(6 * fold, 6 * fold + 6)]
                scores = {case: float(rng.uniform(0.4, 0.9)) + shift for case in cases}
                runs.append(evaluation(tmp_path, scores, model=model, fold=fold, seed=seed, patients=patients))
    _, result = compared(tmp_path, runs)
    values: dict[str, dict[str, list[float]]] = {}
    means: dict[str, list[float]] = {}
    for run in runs:
        rows = list(csv.DictReader((run.folder / "cases.csv").open()))
        model = run.record["tags"]["model"]
        means.setdefault(model, []).append(sum(float(one["mean_dice"]) for one in rows) / len(rows))
        for one in rows:
            values.setdefault(model, {}).setdefault(one["case"], []).append(float(one["mean_dice"]))
    p_values = {}
    for first, second in (("m1", "m2"), ("m1", "m3"), ("m2", "m3")):
        difference = {case: sum(values[first][case]) / 2 - sum(values[second][case]) / 2 for case in patients}
        by_patient = [(difference[f"c{2 * n}"] + difference[f"c{2 * n + 1}"]) / 2 for n in range(9)]
        found = row(result, "pairs", first=first, second=second)
        assert float(found["mean_difference"]) == pytest.approx(sum(difference.values()) / 18)
        assert float(found["p_wilcoxon"]) == pytest.approx(stats.wilcoxon(by_patient).pvalue)
        assert float(found["cohen_dz"]) == pytest.approx(np.mean(by_patient) / np.std(by_patient, ddof=1))
        assert (found["n_cases"], found["n_patients"]) == ("18", "9")
        p_values[first, second] = float(found["p_wilcoxon"])
    smallest, middle, largest = sorted(p_values.values())
    expected = [min(1, 3 * smallest), max(3 * smallest, 2 * middle), max(3 * smallest, 2 * middle, largest)]
    assert sorted(float(one["p_holm"]) for one in table(result, "pairs")) == pytest.approx(np.minimum(expected, 1.0))
    for model, found in means.items():
        group = row(result, "groups", group=model)
        assert float(group["mean_over_runs"]) == pytest.approx(np.mean(found))
        assert float(group["sd_over_runs"]) == pytest.approx(np.std(found, ddof=1))
        assert group["n_runs"] == "6"


def test_the_interval_resamples_patients(tmp_path):
    patients = {case: "one" if case in "abc" else "two" for case in A}
    runs = [evaluation(tmp_path, scores, model=name, patients=patients) for name, scores in (("x", A), ("y", B))]
    _, result = compared(tmp_path, runs, confidence=0.4)
    # A patient of three cases (differences 0.05, -0.02, 0.1) and one of a single case (0.1): half of the samples
    # have each once, which is the middle of the distribution.
    assert numbers(table(result, "pairs")[0], "ci_low", "ci_high") == pytest.approx([0.0575, 0.0575])


def test_ranks_follow_the_metrics_direction(tmp_path):
    def scores(first, second):
        return {case: {"hd95_mm/WT": first, "dice/WT": second} for case in "abcdef"}

    near, far = (scores(2.0, 0.5), scores(5.0, 0.9))
    runs = [evaluation(tmp_path, near, model="near"), evaluation(tmp_path, far, model="far")]
    _, result = compared(tmp_path, runs, metrics=["hd95_mm/WT", "dice/WT"])
    best = {one["metric"]: one["group"] for one in table(result, "groups") if one["rank"] == "1"}
    assert best == {"hd95_mm/WT": "near", "dice/WT": "far"}
    assert {one["metric"]: float(one["mean_rank"]) for one in table(result, "groups") if one["group"] == "far"} == {
        "hd95_mm/WT": 2.0,
        "dice/WT": 1.0,
    }


def test_a_clear_difference_names_the_better_group_also_when_lower_is_better(tmp_path):
    cases = [f"c{number}" for number in range(12)]
    good = {case: {"hd95_mm/WT": 2.0 + 0.01 * index} for index, case in enumerate(cases)}
    bad = {case: {"hd95_mm/WT": 5.0 + 0.1 * index} for index, case in enumerate(cases)}
    runs = [evaluation(tmp_path, good, model="good"), evaluation(tmp_path, bad, model="bad")]
    _, result = compared(tmp_path, runs, metrics=["hd95_mm/WT"])
    [found] = table(result, "pairs")
    assert found["better"] == "good"
    assert float(found["p_holm"]) == pytest.approx(2 / 2**12)
    assert row(result, "groups", group="good")["wins"] == "1"


def test_holm_counts_the_tests_of_all_metrics(tmp_path):
    rng = np.random.default_rng(1)

    def scores():
        return {f"c{n}": {"dice/WT": float(rng.uniform()), "dice/TC": float(rng.uniform())} for n in range(10)}

    runs = [evaluation(tmp_path, scores(), model="x"), evaluation(tmp_path, scores(), model="y")]
    _, result = compared(tmp_path, runs, metrics=["dice/WT", "dice/TC"])
    plain, corrected = (sorted(float(one[key]) for one in table(result, "pairs")) for key in ("p_wilcoxon", "p_holm"))
    assert corrected[0] == pytest.approx(min(1.0, 2 * plain[0]))


def test_missing_cases_are_named_everywhere(tmp_path):
    short = {case: value for case, value in B.items() if case != "c"}
    runs = [evaluation(tmp_path, A, model="whole"), evaluation(tmp_path, short, model="short")]
    run, result = compared(tmp_path, runs)
    assert table(result, "missing") == [
        {"metric": "mean_dice", "group": "short", "case": "c", "reason": "not evaluated in this group"}
    ]
    assert row(result, "pairs")["n_cases"] == "3"
    said = "mean_dice, short: 1 case not evaluated in this group: c."
    assert said in "\n".join(result.lines)
    assert said in (run.folder / "compare.html").read_text()
    assert said in json.loads((run.folder / "comparison.json").read_text())["notes"]


def test_undefined_and_infinite_values_are_left_out_and_named(tmp_path):
    def scores(**changed):
        return {case: {"hd95_mm/WT": value} for case, value in {"a": 2.0, "b": 3.0, "c": 4.0, **changed}.items()}

    runs = [
        evaluation(tmp_path, scores(a=math.inf), model="x"),
        evaluation(tmp_path, scores(b=math.nan), model="y"),
    ]
    _, result = compared(tmp_path, runs, metrics=["hd95_mm/WT"])
    reasons = {(one["group"], one["case"]): one["reason"].partition(":")[0] for one in table(result, "missing")}
    assert reasons == {("x", "a"): "infinite", ("y", "b"): "undefined"}
    assert row(result, "pairs")["n_cases"] == "1"
    _, penalized = compared(tmp_path, runs, metrics=["hd95_mm/WT"], infinite_as=374.0)
    assert row(penalized, "pairs")["n_cases"] == "2"
    assert float(row(penalized, "pairs")["mean_difference"]) == pytest.approx((374.0 - 2.0) / 2)


def test_one_infinite_seed_makes_the_case_unusable(tmp_path):
    def scores(value):
        return {"a": {"hd95_mm/WT": value}, "b": {"hd95_mm/WT": 2.0}}

    runs = [evaluation(tmp_path, scores(value), model="x", seed=seed) for seed, value in enumerate((1.0, math.inf))]
    _, result = compared(tmp_path, [*runs, evaluation(tmp_path, scores(3.0), model="y")], metrics=["hd95_mm/WT"])
    assert "infinite in 1 of 2 repetitions" in row(result, "missing", case="a")["reason"]
    assert row(result, "groups", group="x")["n_cases"] == "1"


def test_an_evaluations_policy_for_empty_references_holds(tmp_path):
    settings = {"empty_reference": "one"}
    runs = [
        evaluation(tmp_path, {**A, "a": math.nan}, model="x", settings=settings),
        evaluation(tmp_path, A, model="y", settings=settings),
    ]
    _, result = compared(tmp_path, runs)
    assert table(result, "missing") == []
    assert float(row(result, "groups", group="x")["mean_over_cases"]) == pytest.approx((1.0 + 0.8 + 0.7 + 0.95) / 4)


def test_seeds_are_averaged_and_a_lacking_one_is_named(tmp_path):
    other = {case: value - 0.1 for case, value in A.items()}
    runs = [
        evaluation(tmp_path, A, model="x", seed=0),
        evaluation(tmp_path, other, model="x", seed=1),
        evaluation(tmp_path, A, model="y", seed=0),
    ]
    _, result = compared(tmp_path, runs)
    assert float(row(result, "pairs")["mean_difference"]) == pytest.approx(-0.05)
    assert row(result, "groups", group="x")["n_cases"] == "4"
    assert any("y has no evaluation of fold 0 seed 1" in line for line in result.lines)


def test_numbers_of_the_validation_fold_are_labelled_everywhere(two, tmp_path):
    run, result = compared(tmp_path, two)
    for name, key in (("groups", "chosen_on"), ("runs", "chosen_on")):
        assert {one[key] for one in table(result, name)} == {"validation fold"}
    assert row(result, "pairs")["chosen_on_validation_fold"] == "first and second"
    assert any(line.startswith("† validation fold: each checkpoint was picked") for line in result.lines)
    assert sum("first †" in line for line in result.lines) == 2
    page = (run.folder / "compare.html").read_text()
    assert "each checkpoint was picked" in page
    assert page.count("first †") >= 3  # both tables and the figure
    tracked = json.loads((run.folder / "comparison.json").read_text())
    assert {one["chosen_on"] for one in tracked["groups"].values()} == {"validation fold"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [("test", "test set"), ("/data/new", "other cases"), ("out_of_fold", "validation fold")],
)
def test_where_the_scores_come_from(tmp_path, source, expected):
    runs = [evaluation(tmp_path, scores, model=name, source=source) for name, scores in (("x", A), ("y", B))]
    _, result = compared(tmp_path, runs)
    assert {one["chosen_on"] for one in table(result, "groups")} == {expected}
    assert any(line.startswith("†") for line in result.lines) == (expected == "validation fold")


def test_foreign_predictions_are_a_group_of_unknown_origin(tmp_path):
    runs = [
        evaluation(tmp_path, A, model="unet3d", source="test"),
        evaluation(tmp_path, B, model=None, predictions="/data/nnunet/fold_0"),
    ]
    _, result = compared(tmp_path, runs)
    assert {one["group"]: one["chosen_on"] for one in table(result, "groups")} == {
        "unet3d": "test set",
        "nnunet/fold_0": "unknown",
    }
    assert any("not measured in the same way" in line for line in result.lines)


def test_groups_are_what_differs_by_the_shortest_names(tmp_path):
    runs = [
        evaluation(tmp_path, A, model="x", rate=0.1),
        evaluation(tmp_path, A, model="x", rate=0.2),
        evaluation(tmp_path, B, model="y", rate=0.2),
    ]
    _, result = compared(tmp_path, runs)
    assert {one["group"] for one in table(result, "groups")} == {"x lr=0.1", "x lr=0.2", "y lr=0.2"}


def test_scores_have_names_that_mlflow_takes(tmp_path):
    runs = [evaluation(tmp_path, scores, rate=rate) for scores, rate in ((A, 0.1), (B, 0.2))]
    _, result = compared(tmp_path, runs)
    assert result.scores == {"mean_dice/lr-0.1": pytest.approx(0.8375), "mean_dice/lr-0.2": pytest.approx(0.78)}
    assert all(re.fullmatch(r"[\w/. -]+", name) for name in result.scores)


def test_a_key_makes_the_groups_when_it_is_named(tmp_path):
    runs = [evaluation(tmp_path, A, model=model, rate=rate) for model in ("x", "y") for rate in (0.1, 0.2)]
    _, result = compared(tmp_path, runs, by=["model.optimizer.lr"])
    assert {one["group"] for one in table(result, "groups")} == {"lr=0.1", "lr=0.2"}
    assert any("Evaluations of one group differ in model" in line for line in result.lines)
    assert any("joins several configurations with fold 0 seed 0" in line for line in result.lines)


def test_seeds_can_be_compared(tmp_path):
    runs = [evaluation(tmp_path, scores, seed=seed) for seed, scores in enumerate((A, B))]
    _, result = compared(tmp_path, runs, by=["seed"])
    assert {one["group"] for one in table(result, "groups")} == {"seed=0", "seed=1"}
    assert not any("has no evaluation of" in line for line in result.lines)


def test_the_same_comparison_gives_the_same_bytes(two, tmp_path):
    first, _ = compared(tmp_path / "1", two)
    second, _ = compared(tmp_path / "2", list(reversed(two)))
    for name in ("groups.csv", "pairs.csv", "cases.csv", "comparison.png"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_the_page_asks_for_nothing_from_elsewhere_and_escapes(tmp_path):
    hostile = "<script>alert(1)</script>"
    runs = [
        evaluation(tmp_path, A, model=None, predictions=f"/data/{hostile}"),
        evaluation(tmp_path, B, model=None, predictions="/data/plain"),
    ]
    run, _ = compared(tmp_path, runs)
    page = (run.folder / "compare.html").read_text()
    assert "http" not in page
    assert not re.findall(r"@import|<link|<iframe|<script", page)
    assert "&lt;script&gt;" in page


def refused(tmp_path, runs, error, **changes):
    with pytest.raises(error) as caught:
        compared(tmp_path / "refused", runs, **changes)
    return str(caught.value)


def test_folds_of_one_configuration_are_summed_up_without_pairs(tmp_path):
    lower = {case: value - 0.1 for case, value in B.items()}
    runs = [evaluation(tmp_path, {f"{case}{fold}": value for case, value in scores.items()}, fold=fold)
            for fold, scores in enumerate((A, lower))]  # fmt: skip
    run, result = compared(tmp_path, runs)
    found = row(result, "groups", group="unet3d")
    means = [np.mean(list(scores.values())) for scores in (A, lower)]
    assert numbers(found, "mean_over_runs", "sd_over_runs", "n_cases") == pytest.approx(
        [np.mean(means), np.std(means, ddof=1), 8]
    )
    assert table(result, "pairs") == []
    assert result.outputs["pairs"].read_text().strip() == ",".join(PAIR_COLUMNS)
    assert any("There is one group, hence no difference" in line for line in result.lines)
    assert not any("first - second" in line for line in result.lines)
    page = (run.folder / "compare.html").read_text()
    assert "There is one group" in page
    assert "Paired" not in page.partition("<body")[2]


def test_one_evaluation_and_a_key_that_makes_one_group_are_refused_with_what_to_do(tmp_path):
    runs = [evaluation(tmp_path, A, fold=fold) for fold in (0, 1)]
    message = refused(tmp_path, runs, ConfigurationError, by=["model"])
    assert "expected at least two groups, got one, 'unet3d', of 2 evaluations (fold 0 seed 0, fold 1 seed 0)" in message
    assert "compare.by=[seed]" in message
    assert "of 1 evaluation (" in refused(tmp_path, runs[:1], ConfigurationError)


def test_the_columns_of_pairs_are_the_same_with_and_without_any(two, tmp_path):
    _, result = compared(tmp_path, two)
    assert tuple(table(result, "pairs")[0]) == PAIR_COLUMNS


def test_no_common_cases_are_refused_with_what_to_do(tmp_path):
    runs = [evaluation(tmp_path, {case: 0.5}, model=model) for model, case in (("x", "a"), ("y", "b"))]
    message = refused(tmp_path, runs, CohortError)
    assert "expected cases that 'x' and 'y' both have mean_dice of, got none: a there, b here" in message
    assert "compare.select" in message


def test_other_definitions_of_labels_are_refused(tmp_path):
    runs = [evaluation(tmp_path, A, model="x"), evaluation(tmp_path, B, model="y", settings={"labels": {"ET": 1}})]
    message = refused(tmp_path, runs, ConfigurationError)
    assert "the same definition of labels" in message
    assert "dataset.labels" in message


def test_other_settings_of_metrics_are_refused(tmp_path):
    runs = [evaluation(tmp_path, A, model="x"), evaluation(tmp_path, B, model="y", settings={"empty_reference": "one"})]
    message = refused(tmp_path, runs, ConfigurationError)
    assert "evaluate.empty_reference=nan" in message
    assert "compare.select=[evaluate.empty_reference=nan]" in message


def test_other_references_of_a_case_are_refused(tmp_path):
    runs = [evaluation(tmp_path, A, model="x"), evaluation(tmp_path, B, model="y", reference="corrected")]
    assert "4 cases have different ones" in refused(tmp_path, runs, CohortError)


def test_a_misspelt_column_names_the_nearest(two, tmp_path):
    assert "did you mean mean_dice" in refused(tmp_path, two, UnknownOptionError, metrics=["mean_dise"])


def test_a_column_without_direction_asks_for_it(tmp_path):
    scores = {"a": {"reference_volume_mm3/WT": 1.0}}
    runs = [evaluation(tmp_path, scores, model=model) for model in ("x", "y")]
    metrics = ["reference_volume_mm3/WT"]
    assert "compare.lower_is_better" in refused(tmp_path, runs, ConfigurationError, metrics=metrics)
    compared(tmp_path, runs, metrics=metrics, lower_is_better=metrics)


def test_a_misspelt_group_key_names_the_nearest(two, tmp_path):
    assert "did you mean model" in refused(tmp_path, two, UnknownOptionError, by=["modle"])


def test_a_table_that_changed_is_refused(two, tmp_path):
    path = two[0].folder / "cases.csv"
    path.write_text(path.read_text().replace("0.9", "0.99"))
    assert "expected sha256" in refused(tmp_path, two, CheckpointMismatchError)


@pytest.mark.parametrize("changes", [{"metrics": []}, {"by": []}])
def test_settings_without_meaning_are_refused(two, tmp_path, changes):
    refused(tmp_path, two, ConfigurationError, **changes)


@pytest.mark.parametrize("override", ["compare.confidence=95", "compare.num_resamples=0", "compare.metrics=dice"])
def test_values_out_of_range_are_refused_at_composition(override):
    with pytest.raises(ConfigurationError, match=override.partition("=")[0]):
        compose(["stage=compare", override])
