"""The entrypoint: check the command line, let Hydra compose it, run its stage.

python -m medexp.run dataset=brats model=monai_ft stage=2
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medexp.errors import ConfigurationError, JobDiedError, JobRefusedError, MedexpError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from medexp.runs.lineage import Recipe
    from medexp.sweeps.job import Outcome

EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130
_ASKED_TO_END = (EXIT_INTERRUPTED, 143)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    0: done. 1: a run failed. 2: refused before anything started. 130: interrupted by the keyboard.
    A run that is asked to end (SIGTERM) exits with 143.
    """
    from medexp.composition.command_line import read_command_line

    # Before torch is imported: threads that spin while they wait take the cores from the loader's processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = read_command_line(argv)
        if command.help_text is not None:
            sys.stdout.write(command.help_text)
        else:
            _compose_and_launch(command.argv)
    except ConfigurationError as error:
        return _complain(f"error: {error}", EXIT_REFUSED)
    except MedexpError as error:
        return _complain(f"error: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command continues", EXIT_INTERRUPTED)
    except Exception:  # noqa: BLE001 - the outermost frame: whatever it is, say it whole and fail
        return _complain(traceback.format_exc(), EXIT_FAILED)
    return 0


def task(config: "DictConfig", recipe: "Recipe | None" = None) -> "Outcome":
    """Run the composed stage; every launcher calls this, also on another machine."""
    from medexp.sweeps.job import run_composed
    from medexp.tracking.tracker import SWEEP_VARIABLE

    try:
        return run_composed(config, recipe)
    except ConfigurationError as error:
        # Too late for "refused before anything started": the run has failed.
        raise JobRefusedError(str(error)) from error
    except SystemExit as left:
        if SWEEP_VARIABLE not in os.environ or left.code in _ASKED_TO_END:
            raise
        # Launchers that run jobs in their own process would lose the others with it.
        raise JobDiedError(f"it left by itself with exit status {left.code}") from left


def _compose_and_launch(argv: list[str]) -> None:
    import hydra

    from medexp.composition.locations import conf_dir
    from medexp.sweeps.logs import errors_said_once

    sys.argv = [sys.argv[0], *argv]
    # Hydra then hands exceptions on, instead of printing an abridged one and leaving by itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with errors_said_once():
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()


def _complain(text: str, status: int) -> int:
    sys.stderr.write(f"{text.rstrip()}\n")
    return status


if __name__ == "__main__":
    # Launchers send `task` to other processes by the name of its module, which must not be __main__.
    from medexp.run import main as run

    sys.exit(run())
