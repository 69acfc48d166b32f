"""What a failure of a file system or a store's client means: whether a second try can mend it, and why not."""

import errno

from pipeline.errors import AbsentError, DeniedError, StorageError

_DENIED_NAMES = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError")


def permanent(error: BaseException, writing: bool) -> tuple[type[StorageError], str] | None:
    """The kind and the reason of a failure that no second try can mend; None of one that may pass.

    A reason may repeat what the client says, so it is not to be shown as it is.
    """
    number = getattr(error, "errno", None)
    if isinstance(error, IsADirectoryError):
        return AbsentError, "it is a folder"
    if isinstance(error, FileExistsError) or (isinstance(error, NotADirectoryError) and writing):
        return StorageError, "a file is in the place of a folder on the way"
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return AbsentError, "no such bucket" if "bucket does not exist" in str(error).lower() else "it does not exist"
    if number == errno.ENAMETOOLONG or type(error).__name__ == "ParamValidationError" or "null byte" in str(error):
        return AbsentError, f"no object can have that name ({detail(error)})"
    if "range is not satisfiable" in str(error):
        return AbsentError, "it is shorter than it was"
    if number == errno.EROFS:
        return DeniedError, "the file system is read-only"
    if (status := getattr(error, "status", None)) in (401, 403):  # of a web server
        return DeniedError, f"no permission (status {status}; {detail(error)})"
    if isinstance(error, PermissionError) or type(error).__name__ in _DENIED_NAMES:
        return DeniedError, f"no permission ({detail(error)})"
    if not isinstance(error, Exception):
        return StorageError, repr(error)
    return None


def detail(error: BaseException) -> str:
    """What the error says on one line, without the path that a message names already."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
