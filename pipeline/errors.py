"""What can go wrong, in one plain line each: the value, the place and the way out."""


class DensemaskError(Exception):
    """An error that the user can act on. The command prints it as one line, without a traceback."""

    exit_code = 2  # what was asked for cannot be run; 1: it ran and did not succeed


class ConfigError(DensemaskError):
    """A job, recipe or command line that cannot be run as written."""


class SourceError(DensemaskError):
    """A dataset location that holds no images or is not laid out as told."""


class WeightsError(DensemaskError):
    """Weights that are missing, broken, or of another network."""


class StorageError(DensemaskError):
    """A store that refuses, after the retries: the run cannot go on with this object."""

    exit_code = 1


class AbsentError(StorageError):
    """The object, folder or bucket does not exist."""

    exit_code = 2


class DeniedError(StorageError):
    """The store knows who asks and says no, or was given no credentials."""

    exit_code = 2


class RunError(DensemaskError):
    """The run ended red: what was committed stays, the message says what is missing."""

    exit_code = 1


class ImageError(DensemaskError):
    """One image cannot be labelled; it becomes a row with this status and reason. ``kind``: the reason in a word."""

    status = "unreadable"

    def __init__(self, message: str, kind: str = "broken") -> None:
        super().__init__(message)
        self.kind = kind


class RejectedImage(ImageError):
    """The image could be read but lies outside the limits of the recipe."""

    status = "rejected"


class TruthError(DensemaskError):
    """The truth mask of one image cannot be used; its row says so and takes no part in any mIoU."""
