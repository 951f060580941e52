import functools
import traceback

import pytest
from omegaconf import OmegaConf

from medexp.composition import instantiate
from medexp.errors import ConfigurationError, TargetNotAllowedError

_SOURCE = """
class Part:
    def __init__(self, **given):
        self.given = given
class Broken:
    def __init__(self, size):
        raise ValueError(f"size {size} is odd")
def function(**given):
    return given
"""


@pytest.fixture(autouse=True)
def own_parts(package, monkeypatch):
    package(parts=_SOURCE)
    monkeypatch.setenv("MEDEXP_ALLOW_TARGETS", "ownpackage")


def _node(name="Part", **given):
    return {"_target_": f"ownpackage.parts.{name}", **given}


def test_nested_parts_are_built_first():
    made = instantiate(_node(inner=_node(x=1), listed=[_node(x=2)], named={"a": _node(x=3)}))
    assert made.given["inner"].given == {"x": 1}
    assert made.given["listed"][0].given == {"x": 2}
    assert made.given["named"]["a"].given == {"x": 3}


def test_partial_gives_a_function_to_complete():
    made = instantiate(_node("function", _partial_=True, x=1))
    assert isinstance(made, functools.partial)
    assert made(y=2) == {"x": 1, "y": 2}


def test_containers_are_plain():
    made = instantiate(_node(listed=[1, [2]], named={"a": {"b": 1}}))
    assert type(made.given["listed"]) is list
    assert type(made.given["named"]["a"]) is dict


def test_an_unrecursive_node_hands_its_children_over():
    assert instantiate(_node(_recursive_=False, inner=_node())).given["inner"] == _node()


def test_text_that_looks_like_an_interpolation_stays_text():
    text = "${oc.create:{_target_: os.system, command: touch canary}}"
    assert OmegaConf.create({"x": text}).x["_target_"] == "os.system"  # what reading it twice would make of it
    assert instantiate(_node(text=text)).given["text"] == text


def test_an_error_in_a_constructor_keeps_its_traceback_and_names_the_key():
    with pytest.raises(ValueError, match="size 3 is odd") as raised:
        instantiate(_node(inner=_node("Broken", size=3)), key="stage.call")
    assert raised.value.__notes__[0] == "while building stage.call.inner (ownpackage.parts.Broken)"
    assert "in __init__" in "".join(traceback.format_exception(raised.value))


def test_a_node_without_a_target_is_an_error():
    with pytest.raises(ConfigurationError, match=r"stage\.call: expected _target_"):
        instantiate({"x": 1})


@pytest.mark.parametrize("target", ["os.system", "torch.load", "medexp.runs.files.atomic_write"])
def test_a_target_is_checked_again(target):
    with pytest.raises(TargetNotAllowedError, match=r"stage\.call\.inner\._target_"):
        instantiate(_node(inner={"_target_": target, "command": "touch canary"}))


@pytest.mark.parametrize(
    "swap",
    [
        "import os\nThing = os.system",
        "import subprocess\nThing = subprocess.Popen",
        "import functools, os\nThing = functools.partial(os.system)",
        "Thing = lambda **given: given",
        "def outer():\n    def Thing(**given): ...\n    return Thing\nThing = outer()",
        "class Outer:\n    def method(self): ...\nThing = Outer().method",
        "class Called:\n    def __call__(self): ...\nThing = Called()",
    ],
)
def test_the_real_object_is_checked(package, swap):
    # Source shows a class; running the module puts something else in its place.
    package(swapped="class Thing: ...\n" + "\n".join(f"exec({line!r})" for line in [swap]))
    with pytest.raises(TargetNotAllowedError, match=r"stage\.call\._target_"):
        instantiate({"_target_": "ownpackage.swapped.Thing"})


def test_a_function_of_medexp_is_not_called_while_building():
    node = {"_target_": "medexp.models.curriculum.constant"}
    with pytest.raises(TargetNotAllowedError, match="_partial_"):
        instantiate(node)
    assert isinstance(instantiate({**node, "_partial_": True}), functools.partial)


def test_what_another_library_defines_is_built():
    assert instantiate({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}).weight.shape == (3, 2)
