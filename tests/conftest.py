"""Fixtures only: real data where it is there, a seed."""

import multiprocessing
import os
import signal
from multiprocessing import forkserver
from pathlib import Path

import pytest
from hypothesis import settings

# As the entrypoint does, before torch is imported: tests share their cores with the processes that they start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell that runs the suite in the background lets it ignore Ctrl-C, and every process that a test starts as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A process has one fork server, and who starts it says what its children need not import. Which test that is, is known
# in a single process; of several, each starts its own at once.
if "PYTEST_XDIST_WORKER" in os.environ:
    preloaded = ["tests.synthetic.training", "tests.sweeps.test_isolated", "mlflow.tracking"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
    forkserver.ensure_running()

# How long an example takes says how busy the machine is; pytest-timeout ends what hangs.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data sets beside the checkout; tests skip where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data are not here: {folder.name}/ of the shared folder beside the checkout is absent")
    return folder
