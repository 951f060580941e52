import ast

import pytest

from medexp.composition.annotations import choices, is_instance, is_mapping, value_annotation
from medexp.composition.sources import load


def _read(annotation):
    return ast.parse(annotation, mode="eval").body


@pytest.mark.parametrize(
    ("annotation", "value", "fits"),
    [
        ("int", 3, True),
        ("int", "abc", False),
        ("int", True, False),
        ("int", 3.5, False),
        ("float", 3, True),
        ("float", True, False),
        ("bool", True, True),
        ("bool", 1, False),
        ("str", "abc", True),
        ("str", 1234, True),
        ("str", ["a"], False),
        ("str", None, False),
        ("Path", "/x", True),
        ("int | None", None, True),
        ("int | None", "abc", False),
        ("Optional[float]", None, True),
        ("Union[int, list[int]]", [1, 2], True),
        ("typing.Union[int, str]", {}, False),
        ("Sequence[int]", [1, "b"], False),
        ("Sequence[int]", "abc", False),
        ("tuple[int, ...]", [1, 2, 3], True),
        ("tuple[float, float]", [1, 2, 3], False),
        ("tuple[float, float]", [0.9, 1], True),
        ("tuple", [1, 2], True),
        ("Mapping[str, int]", {"a": 1}, True),
        ("Mapping[str, int]", {"a": "b"}, False),
        ("dict", [], False),
        ("Literal['a', 'b']", "b", True),
        ("Literal['a', 'b']", "c", False),
        ("Callable[..., int]", 3, False),
        ("'int | None'", "abc", False),
        ("Any", object(), True),
        ("torch.Tensor", 3, None),
        ("Float[Tensor, 'i j']", 3, None),
        ("int | Tensor", "abc", None),
        ("int | Tensor", 3, True),
        ("int", {"_target_": "x"}, None),
    ],
)
def test_a_value_fits_does_not_or_nobody_knows(annotation, value, fits):
    assert is_instance(value, _read(annotation), None) is fits


def test_no_annotation_says_nothing():
    assert is_instance(3, None, None) is None


def test_an_alias_is_followed_into_another_module(package):
    package(home="Size = int | None\n", door="from .home import Size\nOwn = Size\n")
    scope = load("ownpackage.door")
    assert is_instance("abc", _read("Size"), scope) is False
    assert is_instance(3, _read("Own"), scope) is True


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [("dict[str, int]", True), ("Mapping | None", True), ("Optional[dict]", True), ("int", False), ("Tensor", False)],
)
def test_a_mapping_is_recognized(annotation, expected):
    assert is_mapping(_read(annotation), None) is expected


def test_the_values_of_a_mapping_have_an_annotation():
    assert ast.unparse(value_annotation(_read("Mapping[str, tuple[int, ...]] | None"))) == "tuple[int, ...]"
    assert value_annotation(_read("dict")) is None


def test_the_words_of_a_literal_are_listed():
    assert choices(_read("Literal['official', 'toolkit'] | None")) == ["official", "toolkit"]
