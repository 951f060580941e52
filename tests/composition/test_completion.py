import os
import subprocess
import sys

import pytest

from medexp.composition.completion import completion_script, readable_line


@pytest.mark.parametrize(
    ("line", "readable"),
    [
        ("python -m medexp.run data", "medexp data"),
        (".venv/bin/python3 -m medexp.run ", "medexp "),
        ("python -m medexp.run -m stage=1 fold=0 model.net", "medexp stage='1' fold=0 model.net"),
        ("python -m medexp.run --cfg job dataset=", "medexp dataset="),
        ("python -m medexp.run fold=1 fold=2 see", "medexp see"),
        ("medexp data", "medexp data"),
    ],
)
def test_the_line_becomes_one_that_hydra_reads(line, readable):
    assert readable_line(line) == readable


def test_the_script_calls_the_module():
    assert "-m medexp.run -sc query=bash" in completion_script(["-sc", "install=bash"])
    assert completion_script(["-sc", "query=bash"]) is None


@pytest.mark.parametrize(
    ("line", "answers"),
    [("python -m medexp.run stage=1 dataset=h", {"dataset=hippocampus"}), ("python -m medexp.run mod", {"model="})],
)
def test_the_command_completes_groups_and_options(line, answers):
    command = [sys.executable, "-m", "medexp.run", "-sc", "query=bash"]
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert answers <= set(ended.stdout.split())
