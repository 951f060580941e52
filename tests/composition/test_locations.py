import os
import shutil
import subprocess
import sys
from pathlib import Path

import medexp
from medexp.composition.locations import conf_dir, default_output_dir


def test_the_configuration_lies_beside_the_package_in_a_checkout():
    assert conf_dir() == Path(medexp.__file__).parents[1] / "conf"
    assert default_output_dir() == conf_dir().parent / "multirun"


def test_it_lies_inside_the_package_in_a_wheel(tmp_path):
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    root = Path(medexp.__file__).parents[1]
    for name in ("medexp", "hydra_plugins"):
        shutil.copytree(root / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(conf_dir(), site / "medexp" / "conf")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from medexp.composition import compose, conf_dir\n"
        f"assert str(conf_dir()).startswith({str(site)!r}), conf_dir()\n"
        f"assert compose(['stage=2']).output_dir == {str(here / 'multirun')!r}"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MEDEXP_OUTPUT_DIR"}
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True, env=environment)
