"""What changes an identity, and what does not."""

import os

from hypothesis import given
from hypothesis import strategies as st

from medexp.runs.identity import difference, identity_of, listing_digest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_identity_does_not_depend_on_the_order_of_keys(record):
    assert identity_of(record) == identity_of(dict(reversed(record.items())))


def test_identity_changes_with_any_value():
    assert identity_of({"lr": 1e-3}) != identity_of({"lr": 1e-4})
    assert identity_of({"seed": 0}) != identity_of({"seed": None})


def test_listing_sees_names_sizes_and_times_but_not_the_place(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "case").mkdir(parents=True)
        (folder / "case" / "image").write_bytes(b"12")
        os.utime(folder / "case" / "image", ns=(5, 5))
    before = listing_digest([str(first)])
    assert before == listing_digest([str(second)])
    os.utime(first / "case" / "image", ns=(5, 6))
    assert listing_digest([str(first)]) != before
    os.utime(first / "case" / "image", ns=(5, 5))
    (first / "case" / "other").write_bytes(b"")
    assert listing_digest([str(first)]) != before


def test_listing_of_nothing_is_not_an_error(tmp_path):
    assert listing_digest([str(tmp_path / "absent")]) == listing_digest([])


def test_difference_names_dotted_keys_with_both_values():
    before = {"model": {"lr": 1, "depth": 3}, "fold": 0}
    after = {"model": {"lr": 2, "depth": 3}, "seed": 1}
    assert difference(before, after) == {"fold": (0, None), "model.lr": (1, 2), "seed": (None, 1)}
