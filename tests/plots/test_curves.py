"""Curves of a training: what was logged is drawn, what was not leaves its panel empty."""

import math

from medexp.plots.curves import training_curves

EPOCHS = [1.0, 2.0, 3.0]


def test_each_panel_draws_its_metrics():
    curves = {
        "train/loss": (EPOCHS, [3.0, 2.0, 1.0]),
        "val/dice/ET": (EPOCHS, [0.1, 0.2, 0.3]),
        "val/dice/mean": (EPOCHS, [0.2, 0.3, 0.4]),
        "lr": (EPOCHS, [0.1, 0.1, 0.05]),
        "epoch_time_s": (EPOCHS, [9.0, 9.0, 9.0]),
    }
    loss, score, rate = training_curves(curves, colors={"ET": "#2ca02c"}, best_epoch=3.0).axes
    assert [line.get_label() for line in loss.lines] == ["train"]
    assert [line.get_label() for line in score.lines[:2]] == ["ET", "mean"]
    assert score.lines[0].get_color() == "#2ca02c"
    assert len(rate.lines) == 1


def test_epochs_without_a_validation_leave_no_gap():
    curves = {"val/dice/mean": (EPOCHS, [0.1, math.nan, 0.3])}
    _, score, _ = training_curves(curves, colors={}, best_epoch=None).axes
    assert score.lines[0].get_xdata().tolist() == [1.0, 3.0]


def test_regions_are_told_apart_without_colors():
    curves = {f"val/dice/{name}": (EPOCHS, [0.1, 0.2, 0.3]) for name in ("WT", "TC")}
    _, score, _ = training_curves(curves, colors={}, best_epoch=None).axes
    assert len({line.get_linestyle() for line in score.lines}) == 2


def test_an_empty_history_is_an_empty_figure():
    assert [axes.lines[:] for axes in training_curves({}, colors={}, best_epoch=None).axes] == [[], [], []]


def test_a_dose_model_is_drawn_by_its_error_in_gray():
    curves = {
        "val/mae_gy": (EPOCHS, [4.0, 3.0, 2.0]),
        "val/mae_gy/PTV70": (EPOCHS, [8.0, 6.0, 5.0]),
        "val/dice/ET": (EPOCHS, [0.1, 0.2, 0.3]),
    }
    _, score, _ = training_curves(curves, colors={"PTV70": "#d55e00"}, best_epoch=None).axes
    assert score.get_title(loc="left") == "Validation MAE (Gy)"
    assert [line.get_label() for line in score.lines] == ["PTV70", "all voxels"]
    assert score.lines[0].get_color() == "#d55e00"
    assert score.get_ylim()[0] == 0.0


def test_terms_of_a_loss_have_a_panel_where_they_were_logged():
    curves = {"train/loss": (EPOCHS, [3.0, 2.0, 1.0]), "train/loss/mse": (EPOCHS, [0.3, 0.2, 0.1])}
    loss, _, _, terms = training_curves(curves, colors={}, best_epoch=None).axes
    assert [line.get_label() for line in loss.lines] == ["train"]
    assert [line.get_label() for line in terms.lines] == ["mse"]
