"""A stage of a package of one's own, which does what its fold is told to: work, or break in some way."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from medexp.errors import CaseError, ConfigurationError
from medexp.stages.context import Context, Result


def act(kinds: list[str], fold: int, seed: int, context: Context) -> Result:
    """Behave like `kinds[fold]`, unless a file `healed` says that all is well now."""
    _mark(context, fold, seed)
    kind = "ok" if (context.output_dir / "healed").exists() else kinds[fold]
    _ACTS.get(kind, _ok)(context)
    path = context.run.folder / "made.txt"
    path.write_text(f"fold {fold} seed {seed}")
    return Result(outputs={"made": path}, objective=0.1 * fold + 0.01 * seed, scores={"val/dice": 0.1 * fold})


def _mark(context: Context, fold: int, seed: int) -> None:
    """Leave a line for every start of a process: which, and what it could see."""
    line = f"{context.run.record['stage']} {fold} {seed} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n"
    with (context.output_dir / "starts.txt").open("a") as stream:
        stream.write(line)


def _ok(context: Context) -> None:
    context.tracker.log_metrics({"train/loss": 0.5}, 1)


def _exception(context: Context) -> None:
    raise ZeroDivisionError("one over nothing")


def _refused(context: Context) -> None:
    raise CaseError("case 7: no label")


def _configuration(context: Context) -> None:
    raise ConfigurationError("kinds: expected something else")


def _exit(context: Context) -> None:
    sys.exit(3)


def _kill(context: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _memory(context: Context) -> None:
    raise MemoryError("too large")


def _segfault(context: Context) -> None:
    ctypes.string_at(0)


def _hang(context: Context) -> None:
    """Hang as native code does: deaf to signals, holding the interpreter's lock, with a child of its own."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.PyDLL(None).sleep(600)


def _work(context: Context) -> None:
    """Work for a second."""
    time.sleep(1.0)


def _long(context: Context) -> None:
    """Work for a minute, with helpers; save when asked to end."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def save(number: int, frame: object) -> None:
        (context.run.folder / "saved.txt").write_text("saved")
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, save)
    for _ in range(600):
        time.sleep(0.1)


def _once(context: Context) -> None:
    """Break at the first attempt only."""
    mark = Path(context.run.folder / "tried")
    if not mark.exists():
        mark.touch()
        raise OSError("the disk was away for a moment")


_ACTS = {
    "exception": _exception,
    "refused": _refused,
    "configuration": _configuration,
    "exit": _exit,
    "kill": _kill,
    "memory": _memory,
    "segfault": _segfault,
    "hang": _hang,
    "work": _work,
    "long": _long,
    "once": _once,
}
