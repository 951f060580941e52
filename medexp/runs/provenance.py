"""With what a run was made: versions, code state, machine."""

import hashlib
import os
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("medexp", "hydra-core", "omegaconf", "torch", "lightning", "monai", "numpy", "scipy", "nibabel", "mlflow")


@cache
def code_version() -> str:
    """Return a hash of medexp's own source: another value means other code, committed or not."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the installed versions of what a result depends on; a missing package is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_state() -> dict[str, Any]:
    """Return commit, branch and whether files differ from it; empty outside a checkout."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return {}
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return {}
    headers = dict(line[2:].split(" ", 1) for line in status.splitlines() if line.startswith("# "))
    dirty = any(not line.startswith("# ") for line in status.splitlines())
    return {"commit": headers.get("branch.oid"), "branch": headers.get("branch.head"), "dirty": dirty}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def machine() -> dict[str, Any]:
    """Return where the run happens; no user name, no environment."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "executable": Path(sys.executable).name,
    }
