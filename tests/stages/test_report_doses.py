"""The report on doses: from the files that were scored, worst case first, limits in words, figures as PNG."""

import re
from dataclasses import replace

import numpy as np
import pytest

from medexp.errors import CheckpointMismatchError
from medexp.io.tables import number, read_table
from medexp.stages.recorded_doses import DoseEvaluation
from medexp.stages.recorded_evaluation import Evaluation
from medexp.stages.report_dose_limits import limit_in_words
from medexp.stages.report_dose_scores import gamma_table, score_table
from medexp.stages.report_dose_tiles import tiles
from tests.synthetic.evaluations import evaluated, reported
from tests.synthetic.scoring_doses import SCORING, cases, named, predicted_dose, write_prediction, write_reference

KINDS = ("wash", "dvh", "difference", "gamma", "profile")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("report_doses")


@pytest.fixture(scope="module")
def evaluation(place):
    """Three cases; the second is far off, the third has a hostile name and no PTV56."""
    first, second, third = (named(case, name) for case, name in zip(cases(3), ("good", "bad", "<b>& x"), strict=True))
    masks = {name: mask for name, mask in third.masks.items() if name != "PTV56"}
    coverage = {name: share for name, share in third.coverage.items() if name != "PTV56"}
    third = replace(third, masks=masks, coverage=coverage)
    for number_, case in enumerate((first, second, third)):
        write_reference(place / "references", case)
        dose = predicted_dose(case, number_)
        write_prediction(place / "predictions", case, dose * np.float32(0.8 if case is second else 1.0))
    return evaluated(place / "out", place / "predictions", place / "references", doses=SCORING)


@pytest.fixture(scope="module")
def page(place, evaluation):
    return reported(place / "out", evaluation, max_cases=2, title='"A" & <B>')


def cards(page):
    return page.split('<article class="card">')[1:]


def without_pictures(page):
    return re.sub(r'"data:[^"]*"', '""', page)


def test_the_page_asks_for_nothing_from_elsewhere(page):
    text = without_pictures(page)
    assert "http" not in text
    assert not re.findall(r"@import|<link|<iframe|<script[^>]+src", text)
    assert set(re.findall(r'(?:src|href)="(.)', page)) <= {"#", "d"}  # places on the page, and data:


def test_hostile_names_are_escaped(page):
    assert "<b>& x" not in page
    assert "&lt;b&gt;&amp; x" in page
    assert "&#34;A&#34; &amp; &lt;B&gt;" in page


def test_the_worst_case_comes_first_with_every_figure(page):
    assert "<h3>bad</h3>" in cards(page)[0]
    assert len(cards(page)) == 2
    for card in cards(page):
        assert card.count("<svg") == len(KINDS)


def test_every_figure_is_a_png_among_the_outputs(place, page):
    folder = next((place / "out").rglob("report.html")).parent
    files = sorted(path.name for path in (folder / "figures").iterdir())
    assert [name for name in files if name.startswith("bad")] == sorted(f"bad_{kind}.png" for kind in KINDS)
    assert len(files) == 2 * len(KINDS)
    assert all((folder / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in files)
    recorded = (folder / "outputs.json").read_text()
    assert all(f"figures/{name}" in recorded for name in files)


def test_headlines_are_those_of_the_summary(evaluation):
    doses = DoseEvaluation(Evaluation.of(evaluation))
    found = {tile["name"]: tile for tile in tiles(doses)}
    rows = read_table(evaluation.folder / "cases.csv")
    error = np.mean([number(row["mae_gy"]) for row in rows])
    assert found["Mean absolute error"]["value"] == f"{error:.2f}"
    assert re.search(r"\d\.\d\d–\d\.\d\d · 3 cases · goal < 2 Gy: not met", found["Mean absolute error"]["detail"])
    gap = np.mean([number(row["d95_gy/PTV70"]) - number(row["reference_d95_gy/PTV70"]) for row in rows])
    assert f"prediction − reference {gap:+.2f} Gy".replace("-", "−") in found["D95 error, PTV70"]["detail"]
    limits = read_table(evaluation.folder / "constraints.csv")
    outcomes = [row["outcome"] for row in limits if row["dose"] == "prediction"]
    counts = [str(outcomes.count(outcome)) for outcome in ("passed", "violated", "missing")]
    assert found["Clinical limits, all cases"]["value"] == " / ".join(counts)


def test_every_mean_says_how_many_cases_it_stands_on(evaluation, page):
    doses = DoseEvaluation(Evaluation.of(evaluation))
    rows = {row["name"]: row for row in score_table(doses)["rows"]}
    assert [rows[name]["cells"][0]["num_used"] for name in ("PTV70", "PTV56")] == [3, 2]
    assert rows["PTV56"]["cells"][0]["num_undefined"] == 1
    assert ">n 2/3<" in page


def test_gamma_is_told_by_every_criterion_and_near_every_target(evaluation):
    doses = DoseEvaluation(Evaluation.of(evaluation))
    table = gamma_table(doses)
    assert table["columns"] == ["3%/3mm global", "2%/2mm local"]
    assert [row["name"] for row in table["rows"]] == ["all voxels", "PTV70", "PTV56"]
    mean = np.mean(
        [number(row["gamma_pass_rate_local_2mm2pct"]) for row in read_table(evaluation.folder / "cases.csv")]
    )
    assert table["rows"][0]["cells"][1]["mean"] == f"{mean:.1f}"


def test_the_gamma_map_has_the_pass_rate_of_the_table(evaluation, page):
    rate = {
        row["case"]: number(row["gamma_pass_rate_global_3mm3pct"])
        for row in read_table(evaluation.folder / "cases.csv")
    }
    assert re.search(rf"Gamma 3%/3mm global: {rate['bad']:.1f} % of [\d,]+ voxels pass", cards(page)[0])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("Rectum", "v60gy_percent", "<=", "25.0"), "V60Gy ≤ 25 %"),
        (("PTV50.4", "v50.4gy_percent", ">=", "95.0"), "V50.4Gy ≥ 95 %"),
        (("Bowel", "v45gy_cc", "<=", "195.0"), "V45Gy ≤ 195 cc"),
        (("PTV56 - PTV70", "dmax_gy", "<=", "59.92"), "Dmax ≤ 59.92 Gy outside PTV70"),
    ],
)
def test_limits_are_written_as_in_a_protocol(row, words):
    region, limit, comparison, bound = row
    assert limit_in_words({"region": region, "limit": limit, "comparison": comparison, "bound": bound}) == words


def test_outcomes_are_told_in_words_and_not_by_color_alone(evaluation, page):
    rows = [row for row in read_table(evaluation.folder / "constraints.csv") if row["case"] == "bad"]
    table = cards(page)[0].split("Clinical limits:")[1]
    for outcome, word in (("passed", "✓ pass"), ("violated", "✗ violation"), ("missing", "– missing")):
        number_of = sum(row["outcome"] == outcome for row in rows)
        assert table.count(f'<td class="outcome {outcome}">{word}</td>') == number_of
        assert number_of > 0


def test_every_case_is_in_the_table_that_can_be_sorted(page):
    table = page.split('id="cases-table"')[1].split("</table>")[0]
    assert table.count("<tr>") == 1 + 3
    assert table.index("bad") < table.index("good")


def test_definitions_name_criteria_cutoff_normalization_and_rules(page):
    text = page.split('id="definitions"')[1]
    for part in ("10 % of its maximum", "3%/3mm global and 2%/2mm local", "Dose normalization", "share of them inside"):
        assert part in text


def test_a_changed_file_costs_its_pictures_and_says_so(tmp_path):
    [case] = cases(1)
    write_reference(tmp_path / "references", case)
    path = write_prediction(tmp_path / "predictions", case, predicted_dose(case, 0))
    run = evaluated(tmp_path / "out", tmp_path / "predictions", tmp_path / "references", doses=SCORING)
    write_prediction(tmp_path / "predictions", case, predicted_dose(case, 1))
    [card] = cards(reported(tmp_path / "out", run))
    assert f"{path} has changed since it was scored" in card
    assert card.count("<svg") == 1  # DVHs are the evaluation's own


def test_a_missing_file_costs_its_pictures_and_says_so(tmp_path):
    [case] = cases(1)
    path = write_reference(tmp_path / "references", case)
    write_prediction(tmp_path / "predictions", case, predicted_dose(case, 0))
    run = evaluated(tmp_path / "out", tmp_path / "predictions", tmp_path / "references", doses=SCORING)
    path.unlink()
    [card] = cards(reported(tmp_path / "out", run))
    assert f"expected the reference at {path}, found none" in card


def test_a_changed_table_is_refused(tmp_path):
    [case] = cases(1)
    write_reference(tmp_path / "references", case)
    write_prediction(tmp_path / "predictions", case, predicted_dose(case, 0))
    run = evaluated(tmp_path / "out", tmp_path / "predictions", tmp_path / "references", doses=SCORING)
    (run.folder / "dvh.csv").write_text("case\n")
    with pytest.raises(CheckpointMismatchError, match="the file changed after its run ended"):
        reported(tmp_path / "out", run)
