"""Errors for people: one sentence that names the key, file or task and says what to do."""

from taskgrid.sentences import without_secrets


class TaskgridError(Exception):
    """Base of every error that taskgrid raises on purpose; its text is for a person.

    Whoever reads it reads no password: texts of libraries and addresses of a person's own stand in it.
    """

    def __str__(self) -> str:
        return without_secrets(super().__str__())


class ConfigError(TaskgridError):
    """The configuration asks for something that does not exist or does not fit."""


class DataError(TaskgridError):
    """A dataset, an image or a class list is missing, damaged or inconsistent."""


class SplitError(DataError):
    """Train, validation and test are not disjoint, or a split lacks samples."""


class LineageError(TaskgridError):
    """Weights that do not belong together: other base, layout, activation, head or split."""


class ArtifactError(TaskgridError):
    """A file that taskgrid wrote, or should write, is damaged, truncated or cannot be written."""


class RemoteError(TaskgridError):
    """A hub or a server cannot be reached, or does not have or give what is asked for."""


class TrackingError(TaskgridError):
    """The experiment registry cannot be reached or refuses a record."""


class DeviceError(TaskgridError):
    """The requested device does not exist or is in use."""


class TrainingError(TaskgridError):
    """Fine-tuning or pre-training diverged or was given settings it cannot run with."""
