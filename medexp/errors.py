"""Every exception raised on purpose. A message says what was expected, what was found and what to do."""


class MedexpError(Exception):
    """Base of all errors that medexp raises on purpose; the entrypoint prints them without a traceback."""


class ConfigurationError(MedexpError, ValueError):
    """The composed configuration cannot be run: the message names the key and the remedy."""


class UnknownOptionError(ConfigurationError):
    """A key, option or name does not exist; the message gives the nearest ones that do."""


class TargetNotAllowedError(ConfigurationError):
    """A `_target_` lies outside the allow-list."""


class CaseError(MedexpError, ValueError):
    """One case cannot be used: the message names the case, the file and the reason."""


class GridMismatchError(CaseError):
    """Two arrays or files that must share a voxel grid do not."""


class CohortError(MedexpError, ValueError):
    """Several cases cannot be used, or the cohort as a whole is not usable; all reasons are listed at once."""


class LeakageError(CohortError):
    """One patient, or the same voxels, stand on both sides of a split; the pairs are listed."""


class ManifestError(MedexpError, ValueError):
    """A manifest, split file or prepared entry does not say what it must."""


class CheckpointMismatchError(MedexpError, ValueError):
    """A checkpoint is damaged, or its weights do not cover the network that asks for them."""


class NonFiniteError(MedexpError, ArithmeticError):
    """A loss, gradient or weight is NaN or infinite; the message names the step and the cases."""


class IncompletePredictionsError(MedexpError, ValueError):
    """The prediction folder lacks cases, or holds some that nobody asked for."""


class UpstreamMissingError(MedexpError, FileNotFoundError):
    """A stage needs the result of an earlier one that has not finished; the message holds the command for it."""


class RunBusyError(MedexpError, RuntimeError):
    """Another live process works on the same run; the message names pid, host and folder."""


class ResumeError(MedexpError, RuntimeError):
    """`resume=require` or `run=<id>` cannot be honored; the message holds the difference."""


class StorageError(MedexpError, OSError):
    """A file could not be written (full disk, no permission); earlier files are untouched."""


class TrackingError(MedexpError, ConnectionError):
    """MLflow cannot be reached although `tracking.strict` says that it must be."""


class CriteriaError(MedexpError, RuntimeError):
    """A training has ended without reaching what was asked of it; the message names the score and the limit."""


class FrozenWeightsError(MedexpError, RuntimeError):
    """A tensor that the curriculum freezes has changed during training; the message names it."""


class MissingDependencyError(MedexpError, ImportError):
    """An optional package is not installed."""

    def __init__(self, extra: str) -> None:
        super().__init__(
            f"expected the optional packages of medexp[{extra}], found none: pip install 'medexp[{extra}]'"
        )


class SweepFailedError(MedexpError, RuntimeError):
    """Some jobs of a sweep failed or were skipped; the table above the message says which and why."""


class JobDiedError(MedexpError, RuntimeError):
    """A job of a sweep ended without a result: an error, a crash, a kill, a timeout; the message says which."""


class JobRefusedError(MedexpError, RuntimeError):
    """A job's configuration turned out to be wrong when it was run; trying again would not help."""


class JobNotStartedError(MedexpError, RuntimeError):
    """A job of a sweep was not started, because another one had failed."""
