"""The stage: a review that opens again, a film, and the way of a mask to its correction and back."""

import json
import threading
import urllib.request

import pytest

from medexp.errors import CaseError, ConfigurationError
from medexp.io.tables import read_table
from medexp.stages import view as stage
from medexp.stages.view import view
from tests.synthetic.evaluations import context_of, fake_run, finish, predicted, predicted_images, tumor
from tests.synthetic.wells import disks, write_image, write_mask

SETTINGS = {
    "action": "review",
    "masks": None,
    "images": None,
    "flags": None,
    "corrected": None,
    "keep_unchanged": False,
    "reviewer": "ada",
    "interval_s": 1.0,
    "alpha": 0.5,
    "show": {"port": 0, "open_browser": False},
    "formats": ["gif"],
    "longest_px": 96,
    "frames_per_s": 10,
}
MASKS = {"A": disks((30, 30, 12)), "B": disks((60, 90, 15))}


@pytest.fixture
def source(tmp_path):
    return predicted_images(tmp_path, {case: (mask, None) for case, mask in MASKS.items()})


def viewed(tmp_path, source=None, *, letter="5", **changes):
    upstream = {} if source is None else {"predicted": [source]}
    run = fake_run(tmp_path, "view", upstream=upstream, letter=letter)
    return finish(run, view("wells", **{**SETTINGS, **changes}, context=context_of(run, **upstream)))


def reviewer_who(does, monkeypatch):
    """Let somebody do things on the page as soon as it is up."""
    waiting = stage.wait_for

    def wait(review, *, opened):
        threading.Thread(target=does, args=(review,)).start()
        waiting(review, opened=opened)

    monkeypatch.setattr(stage, "wait_for", wait)


def send(review, path, content):
    request = urllib.request.Request(review.address + path, json.dumps(content).encode(), {"X-Token": review.token})
    with urllib.request.urlopen(request, timeout=10):
        pass


def test_a_review_writes_flags_and_opens_again_with_them(tmp_path, source, monkeypatch):
    def flag_and_quit(review):
        send(review, "flag", {"index": len(review.flags.reasons()), "reason": "merged"})
        send(review, "quit", {})

    reviewer_who(flag_and_quit, monkeypatch)
    first = viewed(tmp_path, source)
    rows = read_table(first.folder / "flags.csv")
    assert [(row["flag_reason"], row["reviewer"]) for row in rows] == [("merged", "ada")]
    assert rows[0]["image_path"].endswith("A.tif")
    assert first.result["scores"] == {"flagged_share": 0.5}
    assert len(read_table(viewed(tmp_path, source).folder / "flags.csv")) == 2


def test_a_film_needs_no_screen(tmp_path, source):
    run = viewed(tmp_path, source, action="video")
    assert run.output("gif").path.read_bytes().startswith(b"GIF8")


def test_masks_go_out_and_come_back_with_their_history(tmp_path, source):
    out = viewed(tmp_path, source, action="export").folder / "export"
    write_mask(out / "masks" / "A_mask.tif", disks((30, 30, 14)))
    alone = viewed(tmp_path, source, letter="7", action="import", corrected=out)
    assert [one["name"] for one in json.loads(alone.output("corrections").path.read_text())["masks"]] == ["A"]
    assert alone.result["lines"][1].endswith("(view.keep_unchanged=true keeps them): B")
    run = viewed(tmp_path, source, letter="6", action="import", corrected=out, keep_unchanged=True)
    [first, second] = json.loads(run.output("corrections").verified().read_text())["masks"]
    assert (first["name"], first["from_run"], first["reviewer"]) == ("A", source.identity, "ada")
    assert (first["changed_pixels"] > 0, second["changed_pixels"]) == (True, 0)
    assert "2 corrected masks, 1 of them differ" in run.result["lines"][0]
    assert f"dataset.find_cases.corrections=[{run.folder / 'corrections'}]" in run.result["lines"][1]


def test_only_flagged_images_are_exported_if_flags_are_named(tmp_path, source, monkeypatch):
    reviewer_who(
        lambda review: (send(review, "flag", {"index": 1, "reason": ""}), send(review, "quit", {})), monkeypatch
    )
    flags = viewed(tmp_path, source).folder / "flags.csv"
    out = viewed(tmp_path, source, letter="6", action="export", flags=flags).folder / "export"
    assert [path.name for path in sorted(out.rglob("*.tif"))] == ["B.tif", "B_mask.tif"]


def test_flags_of_other_images_are_refused(tmp_path, source):
    (tmp_path / "flags.csv").write_text("image_path,mask_path,flag_reason,reviewer,timestamp\nx,y,,,\n")
    with pytest.raises(ConfigurationError, match=r"view\.flags: expected flags of these 2 images"):
        viewed(tmp_path, source, action="export", flags=tmp_path / "flags.csv")


def test_any_folders_of_masks_and_images_can_be_viewed(tmp_path):
    for case, mask in MASKS.items():
        write_mask(tmp_path / "masks" / f"{case}_mask.tif", mask)
        write_image(tmp_path / "images" / f"{case}.tif", mask)
    run = viewed(tmp_path, action="export", masks=tmp_path / "masks", images=tmp_path / "images")
    assert json.loads(run.output("export").path.read_text())["from_run"] is None
    assert len(list((run.folder / "export" / "images").iterdir())) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": "somewhere"}, r"view\.masks and view\.images"),
        ({"action": "import"}, r"view\.corrected: expected a folder"),
        ({"action": "export", "corrected": "somewhere"}, r"view\.corrected: .*got somewhere with view\.action=export"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, source, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        viewed(tmp_path, source, **changes)


def test_volumes_are_not_shown(tmp_path):
    with pytest.raises(CaseError, match=r"expected predicted images \(TIFF\), got 1 volumes: A"):
        viewed(tmp_path, predicted(tmp_path, {"A": (tumor(), tumor())}))
