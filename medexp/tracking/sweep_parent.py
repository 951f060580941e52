"""One MLflow run over all jobs of a sweep; the jobs hang below it, flat."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from medexp.runs.files import read_json
from medexp.tracking.mirror import RUN_ID, database_uri, experiment_id, open_client
from medexp.tracking.tracker import PARENT_TAG, Status

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)


def start_parent(
    *,
    output_dir: Path,
    uri: str | None,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    strict: bool,
    run_id: str | None = None,
) -> str | None:
    """Create the parent run, or continue `run_id`, and return its id.

    Returns:
        The id; None if MLflow cannot be reached and need not be.
    """
    try:
        client = open_client(uri or database_uri(output_dir))
        if run_id is not None and _is_continued(client, run_id):
            return run_id
        root = None if uri else (output_dir / "mlartifacts").resolve().as_uri()
        run = client.create_run(experiment_id(client, experiment, root), run_name=name, tags=dict(tags))
    except Exception as error:
        if strict:
            raise
        log.warning("TRACKING LOST: the sweep has no parent run in MLflow: %s", error)
        return None
    return str(run.info.run_id)


def _is_continued(client: "MlflowClient", run_id: str) -> bool:
    """Say whether the run is still there; it then says RUNNING again."""
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def end_parent(
    run_id: str | None,
    status: Status,
    *,
    output_dir: Path,
    uri: str | None,
    metrics: Mapping[str, float] | None = None,
    children: Sequence[Path] = (),
    record: Path | None = None,
) -> None:
    """Close the parent run; a lost MLflow is a warning.

    Args:
        run_id: The run; None: there is none, nothing is done.
        status: How the sweep ended.
        output_dir: Where the database lies when `uri` is null.
        uri: MLflow's address.
        metrics: What holds for the sweep as a whole.
        children: Folders of the sweep's runs; those that hang below no other run are hung below this one.
        record: A file that becomes an artifact.
    """
    if run_id is None:
        return
    try:
        client = open_client(uri or database_uri(output_dir))
        for key, value in (metrics or {}).items():
            client.log_metric(run_id, key, value)
        for folder in children:
            _adopt(client, run_id, folder)
        if record is not None:
            client.log_artifact(run_id, str(record))
        client.set_terminated(run_id, status)
    except Exception as error:  # noqa: BLE001 - the sweep is over; tracking cannot undo it
        log.warning("TRACKING LOST: the sweep's parent run stays open in MLflow: %s", error)


def _adopt(client: "MlflowClient", run_id: str, folder: Path) -> None:
    """Hang a run below the parent that was made before the sweep, or where its variables did not reach."""
    from mlflow.exceptions import MlflowException

    if not (folder / RUN_ID).exists():
        return
    with suppress(MlflowException):  # deleted in MLflow since
        child = read_json(folder / RUN_ID)["run_id"]
        if PARENT_TAG not in client.get_run(child).data.tags:
            client.set_tag(child, PARENT_TAG, run_id)
