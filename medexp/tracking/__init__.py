"""MLflow as a view of the ledger: what a run logs goes to its folder first and is mirrored from there."""

from medexp.tracking.mirror import database_uri, prepare_database, sync
from medexp.tracking.redaction import redact
from medexp.tracking.sweep_parent import end_parent, start_parent
from medexp.tracking.tracker import Tracker

__all__ = ["Tracker", "database_uri", "end_parent", "prepare_database", "redact", "start_parent", "sync"]
