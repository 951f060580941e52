"""Several processes that train one run: the global batch decides the result, one process records, none is left."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from mlflow.tracking import MlflowClient

from medexp.errors import ConfigurationError
from medexp.run import main
from medexp.runs.lineage import all_runs
from medexp.runs.members import VARIABLE, Member
from medexp.stages.context import Context
from medexp.stages.ranks import OneMachine, all_ranks
from medexp.tracking import database_uri
from tests.stages.test_fit_command import TIMEOUT_S, command, finish, one_thread, run_folder
from tests.synthetic.training import logged, make_run, make_tracker

# float32 sums in another order, over nine steps of AdamW
TOLERANCE = 2e-3
TWO = ["hardware.devices=2", "hardware.strategy=ddp", "hardware.num_workers=0"]
ALONE = ["hardware.num_workers=0"]
GENTLE = ["model.network.dropout_prob=0.0", "model.curriculum.stage_1.optimizer.lr=1.0e-4"]


def test_a_member_is_told_by_its_environment():
    member = Member(rank=1, port=1234, leader=5, folder="/run", checkpoint="/run/last.ckpt")
    assert Member.of_environment(member.to_environment()) == member
    assert member.resumes_from() == Path("/run/last.ckpt")
    assert Member.of_environment({}) is None
    assert set(member.to_environment()) == {VARIABLE}


def test_slurm_and_other_launchers_do_not_decide_who_this_is(monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.setenv(name, "3")
    leader = OneMachine(None)
    assert (leader.local_rank(), leader.node_rank(), leader.main_address) == (0, 0, "127.0.0.1")
    member = OneMachine(Member(rank=1, port=4321, leader=1, folder="/run", checkpoint=None))
    assert (member.local_rank(), member.main_port) == (1, 4321)
    assert member.creates_processes_externally


def test_a_strategy_that_starts_processes_by_itself_is_refused(tmp_path):
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, enable_checkpointing=False,
        enable_progress_bar=False,
    )  # fmt: skip
    run = make_run(tmp_path / "run")
    context = Context(run=run, tracker=make_tracker(run))
    with (
        pytest.raises(ConfigurationError, match=r"hardware\.strategy: expected ddp"),
        all_ranks(trainer, context, 1, None),
    ):
        pass


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    assert main([*words(output, "stage=mock")]) == 0
    assert main([*words(output, "stage=prepare")]) == 0
    return output


def words(output, *overrides):
    """The same small training as of test_fit_command, without dropout: ranks draw numbers of their own.

    At a tenth of its rate: rounding alone, blown up by AdamW, may be 3e-3 of a gradient's norm at step 10 otherwise.
    """
    return command(output, *GENTLE, *overrides)[3:]


@pytest.fixture(scope="module")
def alone(prepared):
    """What one process makes of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(words(prepared, "stage=1", *ALONE)) == 0
    torch.set_num_threads(before)
    folder = run_folder(prepared)
    kept = folder.with_name("kept")
    folder.rename(kept)
    return kept


def values(folder):
    return {(step, key): float.fromhex(value) for step, key, value in logged(folder)}


def assert_close(found, wanted):
    assert found.keys() == wanted.keys()
    assert {
        key for key in wanted if not abs(found[key] - wanted[key]) <= TOLERANCE * max(1.0, abs(wanted[key]))
    } == set()


@pytest.mark.slow
def test_two_ranks_in_a_sweep_make_what_one_process_makes(prepared, alone):
    (prepared / "mlflow.db").unlink()
    assert main(["-m", *words(prepared, "stage=prepare,1", *TWO)]) == 0
    folder = run_folder(prepared)
    assert_close(values(folder), values(alone))
    assert "MEMBER: 2/2" in (folder / "rank1.log").read_text()
    assert len([run for run in all_runs(prepared) if run.folder != alone and run.record["stage"] == "1"]) == 1
    client = MlflowClient(database_uri(prepared))
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    [run] = [run for run in runs if run.data.tags.get("medexp.stage") == "1"]
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, 13))
    shutil.rmtree(folder)  # the same command addresses the same folder


def start_and_wait_for_step(output, step, *overrides):
    process = subprocess.Popen(
        command(output, *GENTLE, "stage=1", *overrides),
        env=one_thread(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = list(output.glob("brats/1-monai_ft-*/metrics.jsonl"))
        if found and f'"step": {step},' in found[0].read_text():
            break
        time.sleep(0.02)
    [member] = [pid for pid in children_of(process.pid) if VARIABLE in environment_of(pid)]
    return process, member


def children_of(pid):
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def environment_of(pid):
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


@pytest.mark.slow
def test_a_killed_leader_takes_its_member_along_and_another_number_of_devices_goes_on(prepared, alone):
    process, member = start_and_wait_for_step(prepared, 5, *TWO)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while is_alive(member) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(member)
    finish(*command(prepared, *GENTLE, "stage=1", *ALONE))
    folder = run_folder(prepared)
    assert "steps recovered" in (folder / "log.txt").read_text()
    assert_close(values(folder), values(alone))
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_dead_member_ends_the_run_with_its_name(prepared):
    process, member = start_and_wait_for_step(prepared, 3, *TWO)
    os.kill(member, signal.SIGKILL)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "rank 1 ended with signal 9" in complaint
    state = json.loads((run_folder(prepared) / "state.json").read_text())
    assert state["state"] == "failed"
    assert "rank 1 ended with signal 9" in state["reason"]
