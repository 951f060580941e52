"""Comparison of dose models: errors in gray are better when lower, pass rates when higher; every seed is a dot."""

import numpy as np
import pytest
from scipy import stats

from medexp.io.tables import read_table
from tests.synthetic.comparisons import compared, evaluation

GAMMA, D95 = "gamma_pass_rate_global_3mm3pct", "d95_error_gy/PTV70"
SEEDS = (42, 123, 456)


def scores(seed, *, worse):
    """Return three columns of twelve cases; the worse model is worse in every case."""
    random = np.random.default_rng(seed)
    return {
        f"case{number}": {
            "mae_gy": 2.0 + worse + random.uniform(0.0, 0.4),
            GAMMA: 95.0 - 10.0 * worse - random.uniform(0.0, 2.0),
            D95: 0.5 + worse + random.uniform(0.0, 0.2),
        }
        for number in range(12)
    }


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    runs = [
        evaluation(folder, scores(seed, worse=worse), model=model, seed=seed)
        for model, worse in (("dose_ddpm", 1.0), ("dose_unet", 0.0))
        for seed in SEEDS
    ]
    return compared(folder, runs, metrics=["mae_gy", GAMMA, D95])[1]


def table(result, name):
    return read_table(result.outputs[name])


@pytest.mark.parametrize("metric", ["mae_gy", GAMMA, D95])
def test_the_better_model_is_first_in_every_score(result, metric):
    rows = {row["group"]: row for row in table(result, "groups") if row["metric"] == metric}
    assert rows["dose_unet"]["rank"] == "1"
    assert rows["dose_ddpm"]["rank"] == "2"
    [pair] = [row for row in table(result, "pairs") if row["metric"] == metric]
    assert pair["better"] == "dose_unet"


def test_the_spread_over_seeds_is_that_of_their_means(result):
    [row] = [row for row in table(result, "groups") if (row["group"], row["metric"]) == ("dose_unet", "mae_gy")]
    means = [np.mean([case["mae_gy"] for case in scores(seed, worse=0.0).values()]) for seed in SEEDS]
    assert float(row["mean_over_runs"]) == pytest.approx(np.mean(means))
    assert float(row["sd_over_runs"]) == pytest.approx(np.std(means, ddof=1))


def test_models_are_compared_by_wilcoxons_test_on_the_means_over_seeds(result):
    [pair] = [row for row in table(result, "pairs") if row["metric"] == "mae_gy"]
    unet, ddpm = (
        np.mean([[case["mae_gy"] for case in scores(seed, worse=worse).values()] for seed in SEEDS], axis=0)
        for worse in (0.0, 1.0)
    )
    assert float(pair["p_wilcoxon"]) == pytest.approx(stats.wilcoxon(unet - ddpm).pvalue)


def test_the_figure_is_saved(result):
    assert result.outputs["figure"].read_bytes().startswith(b"\x89PNG")
    assert result.outputs["page"].read_text().count(f">{GAMMA}") >= 1
