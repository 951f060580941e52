import pytest

from medexp.composition.signatures import signature_of
from medexp.composition.sources import resolve

_SOURCE = """
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Generic, NamedTuple, TypeVar
import _json

def function(first, second=1, *, third, fourth=2): ...
def open_function(first, **others): ...
class Own:
    def __init__(self, first, /, second, third=0): ...
class Child(Own): ...
class Made:
    def __new__(cls, size): ...
class Empty: ...
T = TypeVar("T")
class Generic_(Generic[T]): ...
@dataclass
class Record:
    kind: ClassVar[str] = "x"
    first: int
    second: list = field(default_factory=list)
    derived: int = field(init=False)
@dataclass(frozen=True)
class ChildRecord(Record):
    _: KW_ONLY
    third: float = field()
class Pair(NamedTuple):
    left: int
    right: int = 0
class Foreign(_json.Unknown): ...
"""


@pytest.mark.parametrize(
    ("name", "required", "optional", "is_open"),
    [
        ("function", ["first", "third"], ["second", "fourth"], False),
        ("open_function", ["first"], [], True),
        ("Own", ["second"], ["third"], False),
        ("Child", ["second"], ["third"], False),
        ("Made", ["size"], [], False),
        ("Empty", [], [], False),
        ("Generic_", [], [], False),
        ("Record", ["first"], ["second"], False),
        ("ChildRecord", ["first", "third"], ["second"], False),
        ("Pair", ["left"], ["right"], False),
        ("Foreign", [], [], True),
    ],
)
def test_arguments_are_read_from_source(package, name, required, optional, is_open):
    package(parts=_SOURCE)
    signature = signature_of(resolve(f"ownpackage.parts.{name}"))
    found = signature.parameters
    assert sorted(item for item in found if found[item].is_required) == sorted(required)
    assert sorted(item for item in found if not found[item].is_required) == sorted(optional)
    assert signature.is_open is is_open


def test_it_agrees_with_python_on_lightnings_trainer():
    from inspect import signature

    from lightning import Trainer

    assert set(signature_of(resolve("lightning.Trainer")).parameters) == set(signature(Trainer).parameters)
