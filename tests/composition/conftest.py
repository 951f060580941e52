"""A folder of one's own configuration files, a package of one's own, and a canary that must never be touched."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def config_dir(tmp_path: Path) -> Callable[..., Path]:
    """Write `name="content"` as `<name with / for __>.yaml` into a folder for `--config-dir`."""

    def write(**files: str) -> Path:
        folder = tmp_path / "own_conf"
        for name, content in files.items():
            path = folder / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(content))
        return folder

    return write


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write `module="source"` as modules of a package `ownpackage` that can be imported; `__` is a dot."""

    def write(**modules: str) -> None:
        root = tmp_path / "site" / "ownpackage"
        for name, source in {"__init__": "", **modules}.items():
            path = root / f"{name if name == '__init__' else name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
            if path.parent != root:
                (path.parent / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(root.parent))
        for loaded in [name for name in sys.modules if name.partition(".")[0] == "ownpackage"]:
            monkeypatch.delitem(sys.modules, loaded)

    return write
