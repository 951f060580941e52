"""Which sweeps a run belongs to, from the records that sweeps leave beside the runs."""

from collections import defaultdict
from pathlib import Path

from medexp.errors import ManifestError
from medexp.runs.files import read_json
from medexp.runs.identity import short


def sweeps_by_run(output_dir: Path) -> dict[str, list[str]]:
    """Return the names by which a run's sweeps can be asked for: folder, identity and its beginning.

    The keys are the runs' folders below `output_dir`. A sweep also has the runs that it found finished.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(output_dir.glob("sweeps/*/sweep.json")):
        try:
            record = read_json(path)
        except ManifestError:  # a record that cannot be read says nothing about any run
            continue
        identity = str(record["identity"])
        for job in record["jobs"]:
            if job.get("run"):
                found[str(job["run"])] += [path.parent.name, short(identity), identity]
    return dict(found)
