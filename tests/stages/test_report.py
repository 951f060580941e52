"""The report: one page that needs nothing else, tells the worst first and where everything came from."""

import re

import numpy as np
import pytest

from medexp.errors import CheckpointMismatchError
from tests.synthetic.evaluations import LABELS, evaluated, predicted, reported, tumor, write_map

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report on three cases behind two trainings; the second is the worst, the third has a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    maps = {
        "good": (tumor(), tumor()),
        "bad": (tumor(3, at=(11, 11, 11)), tumor(9)),
        HOSTILE: (tumor(7), tumor(8)),
        "alone": (tumor(), None),
    }
    excluded = [{"case": "broken", "reasons": ["t1c: expected finite voxels & got <NaN>"]}]
    upstream = {"predicted": [predicted(folder, maps, excluded=excluded)]}
    return reported(folder, evaluated(folder, None, None, upstream=upstream), max_cases=2, title='"A" & <B>')


@pytest.fixture
def foreign(tmp_path):
    """An evaluation of files that no run of ours made."""
    for side, size in (("predictions", 6), ("references", 7)):
        write_map(tmp_path / side / "A.nii.gz", tumor(size))
    return evaluated(tmp_path, tmp_path / "predictions", tmp_path / "references")


def test_the_page_asks_for_nothing_from_elsewhere(page):
    assert "http" not in page
    assert not re.findall(r"@import|<link|<iframe|<script[^>]+src", page)
    assert set(re.findall(r'(?:src|href)="(.)', page)) <= {"#", "d"}  # places on the page, and data:


def test_hostile_names_are_escaped(page):
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2
    assert "&#34;A&#34; &amp; &lt;B&gt;" in page
    assert "<NaN>" not in page


def test_the_worst_case_comes_first_with_pictures(page):
    cards = page.split('<article class="card">')[1:]
    assert [re.search(r"<h3>(.*?)</h3>", card).group(1) for card in cards] == [
        "bad",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
    ]
    assert cards[0].count("<figure") == cards[0].count('src="data:image/png;base64,') == 3


def test_reference_and_prediction_are_drawn_in_the_labels_colors(page):
    card = page.split('<article class="card">')[1]
    assert set(re.findall(r'class="reference" fill="(#\w+)"', card)) == {
        "#1f77b4",
        "#d62728",
        "#2ca02c",
    }
    assert '<path class="prediction" stroke="#d62728" d="M' in card


def test_every_case_is_in_the_table(page):
    table = page.split('id="cases-table"')[1].split("</table>")[0]
    assert table.count("<tr>") == 1 + 3
    assert table.index("bad") < table.index("script") < table.index("good")


def test_headlines_have_an_interval_and_the_cases_used(page):
    tile = re.search(r"Mean foreground Dice</div>.*?detail\">(.*?)</div>", page, re.DOTALL).group(1)
    assert re.fullmatch(r"0\.\d{3}–\d\.\d{3} · 3 cases", tile)


def test_incomplete_columns_say_how_many_cases_they_stand_on(page):
    row = re.search(r"</span>RC.*?</tr>", page, re.DOTALL).group()
    assert "n 0/3" in row


def test_every_training_has_its_curves(page):
    assert re.findall(r"<h3>(Stage.*?)</h3>", page) == [
        "Stage 1 · unet3d · fold0 · seed0",
        "Stage 2 · unet3d · fold0 · seed0",
    ]
    assert page.count("Training curves of Stage") == 2


def test_every_stage_has_its_command(page):
    commands = re.findall(r"<pre>(.*?)</pre>", page)
    stages = ["prepare", "1", "2", "predict", "evaluate", "report"]
    assert sorted(commands) == sorted(f"python -m medexp.run dataset=brats stage={stage}" for stage in stages)


def test_what_was_left_out_is_named(page):
    assert "broken (t1c: expected finite voxels &amp; got &lt;NaN&gt;)" in page
    assert "no reference is known: 1 case, alone" in page
    assert "In no case at all" in page


def test_identities_digest_and_code_are_on_the_page(page):
    assert "e" * 64 in page
    assert "d" * 64 in page
    assert "commit " + "c0ffee" * 6 in page


def test_files_of_no_run_of_ours_have_a_report_too(tmp_path, foreign):
    page = reported(tmp_path, foreign)
    assert "Training" not in page.split("<main>")[1].split("How it was made</h2>")[0]
    assert "outlines only" in page
    assert '<path class="prediction"' in page


def test_no_pictures_are_drawn_where_none_are_asked_for(tmp_path, foreign):
    assert "<figure" not in reported(tmp_path, foreign, max_cases=0)


def test_a_label_map_that_changed_since_costs_its_picture_only(tmp_path, foreign):
    write_map(tmp_path / "predictions" / "A.nii.gz", tumor(9))
    page = reported(tmp_path, foreign)
    assert "has changed since it was scored" in page
    assert "<figure" not in page


def test_a_table_that_changed_since_is_refused(tmp_path, foreign):
    path = foreign.folder / "cases.csv"
    path.write_text(path.read_text().replace("A,", "A,x", 1))
    with pytest.raises(CheckpointMismatchError, match=r"cases\.csv"):
        reported(tmp_path, foreign)


def test_a_case_of_empty_masks_comes_last(tmp_path):
    for side in ("predictions", "references"):
        write_map(tmp_path / side / "A.nii.gz", np.zeros_like(tumor()))
        write_map(tmp_path / side / "B.nii.gz", tumor())
    run = evaluated(tmp_path, tmp_path / "predictions", tmp_path / "references")
    assert re.findall(r"<h3>([AB])</h3>", reported(tmp_path, run)) == ["B", "A"]


def test_a_single_label_without_regions_or_protocol_has_a_report(tmp_path):
    for side in ("predictions", "references"):
        write_map(tmp_path / side / "A.nii.gz", (tumor() > 0).astype(np.uint8))
    settings = {"labels": {"organ": 1}, "regions": {}, "lesions": None, "nsd_tolerances_mm": []}
    run = evaluated(tmp_path, tmp_path / "predictions", tmp_path / "references", **settings)
    page = reported(tmp_path, run)
    assert "Dice, organ" in page
    assert "Lesion-wise" not in page
    assert not LABELS.keys() & set(re.findall(r"\w+", page.split("<main>")[1]))
