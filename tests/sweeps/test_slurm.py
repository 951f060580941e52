"""A real Slurm of one node: faulty jobs, a drained node, preemption, and the same bits as on this machine."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hydra.core.utils import JobStatus

from medexp.run import main
from medexp.runs.lineage import all_runs
from medexp.sweeps.slurm import run_on_slurm
from tests.synthetic.slurm import PARAMETERS, behaving
from tests.synthetic.training import final_state, logged

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT.parent / "shared" / "slurm"
SMALL = [
    "dataset=brats", "model=monai_ft", "mock.num_patients=4", "mock.shape=[40,40,40]", "dataset.num_folds=2",
    "dataset.patch_size=[32,32,32]", "dataset.steps_per_epoch=15", "model.weights=null",
    "model.network.init_filters=8", "model.curriculum.stage_1.freeze=[convInit]",
    "model.curriculum.stage_1.accumulate_grad_batches=1", "model.curriculum.stage_2.accumulate_grad_batches=1",
    "model.curriculum.stage_1.max_epochs=1", "model.curriculum.stage_2.max_epochs=1", "hardware.accelerator=cpu",
    "hardware.num_workers=0", "hardware.threads=1", "tracking.enabled=false",
]  # fmt: skip
SLURM = [
    "hardware=slurm", "hardware.gpus=0", "hardware.cpus=1", "hardware.memory_gb=4", "hardware.time_min=10",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def slurm():
    """A one-node Slurm; stopped at the end if it was started here."""
    if not (SCRIPTS / "start-one-node").exists():
        pytest.skip("no Slurm: the scripts that start one are not beside the checkout")
    if shutil.which("slurmctld") is None:
        pytest.skip("no Slurm: slurmctld is not installed (apt-get install slurm-wlm munge)")
    ran_before = subprocess.run(["sinfo", "-h"], capture_output=True, env=_environment(), check=False).returncode == 0
    started = subprocess.run([SCRIPTS / "start-one-node"], capture_output=True, text=True, cwd=ROOT, check=False)
    if started.returncode != 0:
        pytest.skip(f"no Slurm: {started.stderr.strip().splitlines()[-1]}")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = re.search(r"SLURM_CONF=(\S+)", started.stdout)[1]
    yield
    if not ran_before:
        subprocess.run([SCRIPTS / "stop-one-node"], cwd=ROOT, check=True)
    os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)


def _environment():
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "slurm-one-node"
    return {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}


def ran(folder, kinds, *, requeues=0, **changes):
    jobs = behaving(folder, kinds, requeues=requeues)
    return run_on_slurm(jobs, parameters={**PARAMETERS, **changes}, output_dir=folder)


def wait_until(condition, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)


def queued():
    answer = subprocess.run(
        ["squeue", "--me", "-h", "-r", "-o", "%i %T"], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split() for line in answer.splitlines())


def test_every_kind_of_death_is_reported_and_the_healthy_finish(tmp_path):
    kinds = ["ok", "exception", "exit", "kill", "memory", "segfault", "hang", "ok"]
    results = ran(tmp_path, kinds, timeout_min=1, slurm_signal_delay_s=50)
    assert [one.status is JobStatus.COMPLETED for one in results] == [kind == "ok" for kind in kinds]
    reasons = {kind: str(result._return_value) for kind, result in zip(kinds, results, strict=True)}
    assert reasons["exception"] == "ZeroDivisionError: one over nothing"
    assert reasons["memory"] == "MemoryError: too large"
    assert "exit status 3" in reasons["exit"]
    assert "SIGKILL (out of memory?)" in reasons["kill"]
    assert "SIGSEGV" in reasons["segfault"]
    assert "its time was over" in reasons["hang"]
    assert all((tmp_path / f"{number}.mark").read_text().count("\n") == 1 for number in range(len(kinds)))
    assert queued() == {}


def test_jobs_wait_for_a_drained_node_and_a_cancelled_one_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="medexp")
    node = subprocess.run(["sinfo", "-h", "-o", "%n"], capture_output=True, text=True, check=True).stdout.strip()

    def drain():
        wait_until((tmp_path / "0.mark").exists)
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test"], check=True)
        wait_until(lambda: "drain" in caplog.text.lower())
        [last] = [number for number in queued() if number.endswith("_2")]
        subprocess.run(["scancel", last], check=True)
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=True)

    thread = threading.Thread(target=drain)
    thread.start()
    results = ran(tmp_path, ["slow", "ok", "ok"], slurm_array_parallelism=1)
    thread.join()
    assert [one.status is JobStatus.COMPLETED for one in results] == [True, True, False]
    assert "CANCELLED" in str(results[2]._return_value)


def test_a_killed_sweep_finds_its_jobs_in_the_queue_again(tmp_path):
    code = f"from tests.sweeps.test_slurm import ran; from pathlib import Path; ran(Path({str(tmp_path)!r}), ['slow'])"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_until((tmp_path / "0.mark").exists)
    parent.kill()
    parent.wait()
    [result] = ran(tmp_path, ["slow"])
    assert result.return_value == "slow"
    assert (tmp_path / "0.mark").read_text().count("\n") == 1  # started once


def test_a_sweep_that_is_ended_cancels_its_jobs(tmp_path):
    code = f"from tests.sweeps.test_slurm import ran; from pathlib import Path; ran(Path({str(tmp_path)!r}), ['hang'])"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_until((tmp_path / "0.mark").exists)
    parent.send_signal(signal.SIGINT)
    parent.wait()
    wait_until(lambda: queued() == {})


@pytest.mark.parametrize(
    "command", [["scancel", "--signal=USR2"], ["scontrol", "requeue"]], ids=["warned", "preempted"]
)
def test_a_job_goes_back_into_the_queue(tmp_path, command):
    thread = threading.Thread(target=send_back, args=(command, (tmp_path / "0.mark").exists))
    thread.start()
    [result] = ran(tmp_path, ["first time"], requeues=1)
    thread.join()
    assert result.return_value == "first time"
    assert (tmp_path / "0.mark").read_text().count("\n") == 2


def send_back(command, condition, ending=""):
    wait_until(condition)
    [job] = [number for number in queued() if number.endswith(ending)]
    subprocess.run([*command, job], check=True)
    wait_until(lambda: queued().get(job) == "PENDING")
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)  # Slurm waits two minutes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    assert main(["-m", *line(folder, folder), "hardware=cpu", "stage=mock,prepare"]) == 0
    return folder


def line(output, raw):
    return [f"output_dir={output}", f"dataset.roots=[{raw}/mock/brats]", f"mock.root={raw}/mock/brats", *SMALL]


@pytest.fixture(scope="module")
def local(prepared):
    """The sweep as this machine runs it."""
    assert main(["-m", *line(prepared, prepared), "hardware=cpu", "stage=1,2", "fold=0,1"]) == 0
    return prepared


def test_two_stages_by_two_folds_have_the_same_bits_on_slurm_although_a_job_is_warned(prepared, local, tmp_path):
    for run in all_runs(local):
        if run.record["stage"] == "prepare":
            shutil.copytree(run.folder, tmp_path / "brats" / run.folder.name)
    training = (tmp_path / "brats").glob
    begun = lambda: any('"step": 2,' in path.read_text() for path in training("1-*-fold0-*/metrics.jsonl"))  # noqa: E731
    thread = threading.Thread(target=send_back, args=(["scancel", "--signal=USR2"], begun, "_0"))
    thread.start()
    status = main(["-m", *line(tmp_path, prepared), *SLURM, "stage=1,2", "fold=0,1"])
    thread.join()
    assert status == 0
    names = {run.folder.name for run in all_runs(local) if run.record["stage"] in {"1", "2"}}
    assert len(names) == 4
    for name in names:
        assert logged(tmp_path / "brats" / name) == logged(local / "brats" / name)
        assert final_state(tmp_path / "brats" / name) == final_state(local / "brats" / name)
    [disturbed] = (tmp_path / "brats").glob("1-*-fold0-*")
    assert "steps recovered" in (disturbed / "log.txt").read_text()
