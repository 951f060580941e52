"""What the configuration files that medexp ships define at each key: the measure for every other source of keys.

Experiments, the untracked `local.yaml`, folders given with `--config-dir` and the command line are what is measured.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_NOT_A_MEASURE = frozenset({"experiment", "hydra"})
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)
_WHOLE_REFERENCE = re.compile(r"^\$\{([A-Za-z_][\w.]*)\}$")
_HYDRA_KEYS = ("defaults", "hydra")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where there is one: ten times faster

KeyPath = tuple[str, ...]

# Keys that code reads by name, and the argument that each becomes: no file refers to them.
_LAUNCHER, _TRACKER = "hydra_plugins.medexp_launcher.isolated.IsolatedLauncher", "medexp.tracking.tracker.Tracker"
_READ_BY_NAME: Mapping[KeyPath, tuple[str, str]] = {
    ("resume",): ("medexp.runs.lineage.open_run", "resume"),
    ("run",): ("medexp.runs.lineage.open_run", "run_id"),
    ("sweep", "max_parallel"): (_LAUNCHER, "max_parallel"),
    ("sweep", "fail_fast"): (_LAUNCHER, "fail_fast"),
    ("sweep", "retry"): (_LAUNCHER, "retry"),
    ("sweep", "timeout_s"): (_LAUNCHER, "timeout_s"),
    ("sweep", "grace_s"): (_LAUNCHER, "grace_s"),
    ("tracking", "enabled"): (_TRACKER, "enabled"),
    ("tracking", "uri"): (_TRACKER, "uri"),
    ("tracking", "strict"): (_TRACKER, "strict"),
    ("tracking", "flush_every_s"): (_TRACKER, "flush_every_s"),
    ("tracking", "tensorboard"): (_TRACKER, "tensorboard"),
}


@dataclass
class Shipped:
    """Keys and values by path.

    Attributes:
        keys: The names below each mapping.
        values: What the files say at each key; a mapping stands for itself.
        readers: For each key, the `(_target_, argument)` pairs that refer to it as a whole (`${key}`).
    """

    keys: dict[KeyPath, set[str]] = field(default_factory=dict)
    values: dict[KeyPath, list[Any]] = field(default_factory=dict)
    readers: dict[KeyPath, set[tuple[str, str]]] = field(default_factory=dict)

    def holds_targets(self, path: KeyPath) -> bool:
        """Return whether the mapping at `path` holds parts to build by name, such as callbacks.

        Every name has a file that says its `_target_`; other files may change its arguments, or set it to null.
        """
        names = self.keys.get(path, ())
        return bool(names) and all(any(map(_is_part, self.values[(*path, name)])) for name in names)

    def full_keys(self) -> Iterator[str]:
        """Yield every dotted key."""
        return (".".join(path) for path in self.values)

    def _add(self, path: KeyPath, value: Any) -> None:
        self.values.setdefault(path, []).append(value)
        if isinstance(value, Mapping):
            names = self.keys.setdefault(path, set())
            for name, inner in value.items():
                names.add(str(name))
                self._add((*path, str(name)), inner)
                reference = _WHOLE_REFERENCE.match(inner) if isinstance(inner, str) else None
                if reference and "_target_" in value:
                    reader = (str(value["_target_"]), str(name))
                    self.readers.setdefault(tuple(reference[1].split(".")), set()).add(reader)


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def read_shipped(folder: Path) -> Shipped:
    """Return what the files below a configuration folder define."""
    files = sorted(folder.rglob("*.yaml"))
    newest_ns = max((path.stat().st_mtime_ns for path in files), default=0)
    return _read(folder, len(files), newest_ns)


@lru_cache(maxsize=8)
def _read(folder: Path, num_files: int, newest_ns: int) -> Shipped:
    del num_files, newest_ns  # only part of the cache's key: edited files are read again
    shipped = Shipped()
    for path in sorted(folder.rglob("*.yaml")):
        group = path.parent.relative_to(folder).parts
        if (group and group[0] in _NOT_A_MEASURE) or path.name == "local.yaml":
            continue
        text = path.read_text(encoding="utf-8")
        content = _Loader(text).get_single_data() or {}
        body = {name: value for name, value in content.items() if name not in _HYDRA_KEYS}
        _embed(shipped, _package(text, group), body)
    for key, reader in _READ_BY_NAME.items():
        shipped.readers.setdefault(key, set()).add(reader)
    for key in list(shipped.values):
        shipped.keys.setdefault(key[:-1], set()).add(key[-1])
    return shipped


def _package(text: str, group: KeyPath) -> KeyPath:
    header = _PACKAGE.search(text)
    if header is None:
        return group
    return tuple(part for part in header[1].split(".") if part != "_global_")


def _embed(shipped: Shipped, package: KeyPath, body: Mapping[str, Any]) -> None:
    if package:
        shipped._add(package, body)
        return
    for name, value in body.items():
        shipped._add((name,), value)
