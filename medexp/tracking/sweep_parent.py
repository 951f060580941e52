"""One MLflow run over all jobs of a sweep; the jobs hang below it through `MEDEXP_MLFLOW_PARENT`."""

import logging
from collections.abc import Mapping
from pathlib import Path

from medexp.tracking.mirror import database_uri, experiment_id, open_client
from medexp.tracking.tracker import Status

log = logging.getLogger(__name__)


def start_parent(
    *, output_dir: Path, uri: str | None, experiment: str, name: str, tags: Mapping[str, str], strict: bool
) -> str | None:
    """Create the parent run and return its id; None if MLflow cannot be reached and need not be."""
    try:
        client = open_client(uri or database_uri(output_dir))
        root = None if uri else (output_dir / "mlartifacts").resolve().as_uri()
        run = client.create_run(experiment_id(client, experiment, root), run_name=name, tags=dict(tags))
    except Exception as error:
        if strict:
            raise
        log.warning("TRACKING LOST: the sweep has no parent run in MLflow: %s", error)
        return None
    return str(run.info.run_id)


def end_parent(run_id: str | None, status: Status, *, output_dir: Path, uri: str | None) -> None:
    """Close the parent run; a lost MLflow is a warning."""
    if run_id is None:
        return
    try:
        open_client(uri or database_uri(output_dir)).set_terminated(run_id, status)
    except Exception as error:  # noqa: BLE001 - the sweep is over; tracking cannot undo it
        log.warning("TRACKING LOST: the sweep's parent run stays open in MLflow: %s", error)
