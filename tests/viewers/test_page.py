"""The page in a real browser: what a reviewer presses is what the file says."""

import pytest

from medexp.viewers.flags import Flags, read_flags
from medexp.viewers.server import Review
from tests.synthetic.browser import browser
from tests.viewers.conftest import NAMES


@pytest.fixture(scope="module")
def opened(tmp_path_factory, slides):
    folder = tmp_path_factory.mktemp("review")
    flags = Flags(folder / "flags.csv", slides, "ada")
    with (
        browser(folder / "profile") as page,
        Review(slides, flags, title="wells", interval_s=60, alpha=0.5, port=0) as review,
    ):
        page.open(review.address)
        page.until("typeof count !== 'undefined' && document.getElementById('name').textContent !== ''")
        yield page, review, folder / "flags.csv"


@pytest.fixture
def start(opened):
    """The page at its first slide, nothing flagged."""
    page, review, path = opened
    for index in list(review.flags.reasons()):
        review.flags.remove(index)
    page.value("(document.body.className = '', flags = {}, show(0))")
    return page, review, path


def test_a_hostile_name_is_text(start):
    page, _, _ = start
    assert page.value("document.getElementById('name').textContent") == NAMES[0]
    page.until("[...document.querySelectorAll('#overlaid img')].every((i) => i.complete && i.naturalWidth > 0)")


def test_a_key_flags_and_takes_the_flag_away(start):
    page, review, path = start
    page.press("f")
    page.until("document.body.classList.contains('flagged')")
    assert list(read_flags(path)) == [(str(review.slides[0].image), str(review.slides[0].mask))]
    page.press("f")
    page.until("!document.body.classList.contains('flagged')")
    assert read_flags(path) == {}


def test_a_click_on_the_picture_flags_with_the_reason(start):
    page, review, _ = start
    page.value("document.getElementById('reason').value = 'merged <objects>'")
    page.press("ArrowRight")
    page.click("#overlaid")
    page.until("document.body.classList.contains('flagged')")
    assert review.flags.reasons() == {1: "merged <objects>"}
    assert page.value("document.getElementById('flag').textContent") == "Flagged: merged <objects>"


def test_letters_in_the_reason_are_no_commands(start):
    page, review, _ = start
    page.value("(document.getElementById('reason').value = '', document.getElementById('reason').focus())")
    for key in ("f", "s", "q"):
        page.press(key)
    assert page.value("document.getElementById('reason').value") == "fsq"
    assert not review.ended.is_set()
    assert review.flags.reasons() == {}
    page.press("Escape")
    assert page.value("document.activeElement.id") != "reason"


def test_arrows_go_round(start):
    page, _, _ = start
    page.press("ArrowLeft")
    assert page.value("document.getElementById('place').textContent").startswith("3 of 3")
    page.press("ArrowRight")
    assert page.value("document.getElementById('name').textContent") == NAMES[0]


def test_the_slideshow_goes_on_and_space_pauses_it(start):
    page, _, _ = start
    page.value("(settings.intervalMs = 150, since = performance.now())")
    page.until("now === 1")
    page.press(" ")
    stopped = page.value("now")
    page.value("new Promise((done) => setTimeout(done, 500))")
    assert page.value("now") == stopped
    page.press(" ")
    page.until(f"now !== {stopped}")
    page.value("settings.intervalMs = 60000")


def test_the_mask_can_be_hidden_and_put_beside(start):
    page, _, _ = start
    shown = "getComputedStyle(document.querySelector({!r})).display !== 'none'"
    assert page.value(shown.format("#overlaid .mask"))
    assert not page.value(shown.format("#plain"))
    page.press("m")
    assert not page.value(shown.format("#overlaid .mask"))
    page.press("s")
    assert page.value(shown.format("#plain"))


def test_nothing_is_asked_of_any_other_place(start):
    page, review, _ = start
    assert page.requested
    assert all(url.startswith((review.address, "data:")) for url in page.requested)


def test_escape_quits(opened):  # the last test of this file
    page, review, _ = opened
    page.press("Escape")
    assert review.ended.wait(10)
    page.until("document.body.classList.contains('ended')")
