"""`--help` in well under a second: read from the configuration files, without Hydra."""

import re
import sys
from collections.abc import Iterator

from medexp.composition.groups import options_by_group
from medexp.composition.locations import conf_dir, default_output_dir
from medexp.composition.targets import ALLOW_VARIABLE

_KEY = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: (?P<value>.*?))?(?:\s+# (?P<comment>.*))?$")
_LEFT_OUT = ("defaults", "hydra")
_WIDTH = 34
_USAGE = """\
medexp: experiments for medical imaging, composed by Hydra.

usage: python -m medexp.run [group=option ...] [key=value ...]       one run
       python -m medexp.run -m stage=1,2 fold=0,1,2,3,4 ...          a sweep; finished jobs are not redone
       python -m medexp.run                                          experiment=demo: a small whole sweep
       python -m medexp.runs [state=failed stage=2 ...]              which runs there are

examples:
  python -m medexp.run dataset=brats model=monai_ft stage=2
  python -m medexp.run -m dataset=brats model=monai_ft stage=1,2 fold=0,1,2,3,4 seed=0,1
  python -m medexp.run dataset=hippocampus model=unet3d stage=1 trainer=debug
  python -m medexp.run dataset=brats stage=predict predict.source=/data/new_cases --cfg job

flags:
  -m, --multirun           every combination of comma-separated values
  --cfg job                print the composed configuration and stop (--resolve: with values filled in)
  --config-dir FOLDER      a folder of your own with experiment/, dataset/, ... files
  --info defaults          which files the configuration comes from
  -sc install=bash         completion for this shell: eval "$(python -m medexp.run -sc install=bash)"
  --help                   this text
"""
_ENDING = """\
key=value changes a key, +key=value adds an argument that the file leaves out, ~key removes one.
A misspelt key, option or name is refused with the nearest one that exists.

output goes to {output} (output_dir=...), raw data are read from data_dir.
own paths: conf/local.yaml, untracked, for example with data_dir and tracking.uri.
own code: {variable}=mypackage admits `_target_: mypackage...`.

exit status: 0 done; 1 a run or job failed; 2 refused before anything started; 130 interrupted by the keyboard;
143 ended by SIGTERM, the same command continues.
"""


def help_text() -> str:
    """Return the help: usage, every group with its options, the keys of `config.yaml`, where output goes."""
    groups = "\n".join(_group_lines())
    keys = "\n".join(_key_lines())
    ending = _ENDING.format(output=default_output_dir(), variable=ALLOW_VARIABLE)
    return f"{_USAGE}\n{groups}\nkeys:\n{keys}\n\n{ending}"


def print_help() -> None:
    """Write the help to standard output."""
    sys.stdout.write(help_text())


def _group_lines() -> Iterator[str]:
    for group, options in options_by_group([conf_dir()]).items():
        yield f"{group}="
        for option in options:
            yield f"  {option.name:<{_WIDTH - 4}}{option.summary}".rstrip()
        yield ""


def _key_lines() -> Iterator[str]:
    """Yield the keys of `config.yaml`, sections flattened to dotted names."""
    section = ""
    for line in (conf_dir() / "config.yaml").read_text(encoding="utf-8").splitlines():
        match = _KEY.match(line)
        if match is None:
            continue
        if not match["indent"]:
            section = match["key"]
        if section in _LEFT_OUT or (not match["indent"] and match["value"] is None):
            continue
        key = match["key"] if not match["indent"] else f"{section}.{match['key']}"
        text = f"  {key}={match['value']}"
        yield f"{text:<{_WIDTH}}  {match['comment'] or ''}".rstrip()
