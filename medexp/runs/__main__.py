"""List the recorded runs: `python -m medexp.runs dataset=brats state=failed stage=2`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from medexp.errors import ConfigurationError
from medexp.runs.listing import lines_of, listed
from medexp.runs.places import present_output_dir

EXIT_REFUSED = 2

_DESCRIPTION = """\
List the recorded runs, newest first: state, dataset, model, stage, fold, seed, score, age, folder.

filters are key=value, several values with commas, * and ? for any letters; all of them must hold:
  state dataset model stage fold seed tag, run (identity), name (of the folder) and sweep
output_dir=FOLDER lists the runs of another output folder.

  python -m medexp.runs dataset=brats state=failed,interrupted stage=2
  python -m medexp.runs stage=evaluate tag=paper --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """List runs and return the exit status: 0, or 2 for a filter that no run can match."""
    parser = argparse.ArgumentParser(
        prog="python -m medexp.runs", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("filters", nargs="*", metavar="key=value", help="which runs; all without one")
    parser.add_argument("--json", action="store_true", help="one JSON list with everything known, for programs")
    given = parser.parse_args(arguments)
    places = [text.partition("=")[2] for text in given.filters if text.startswith("output_dir=")]
    output_dir = Path(places[-1] if places else present_output_dir()).absolute()
    try:
        found = listed(output_dir, [text for text in given.filters if not text.startswith("output_dir=")])
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_REFUSED
    if given.json:
        sys.stdout.write(
            json.dumps([{**one, "path": str(output_dir / one["folder"])} for one in found], indent=1) + "\n"
        )
    elif found:
        sys.stdout.write("\n".join(lines_of(found, colored=sys.stdout.isatty())) + "\n")
        sys.stdout.write(f"{len(found)} run{'s' if len(found) != 1 else ''} in {output_dir}\n")
    else:
        sys.stdout.write(f"no such runs in {output_dir}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
