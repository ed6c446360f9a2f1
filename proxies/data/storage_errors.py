"""What a disk or a store answers: what may pass is tried again, what stays becomes a sentence."""

import errno
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cuvee.mixtures.errors import CuveeError, StorageError

Result = TypeVar("Result")
PAUSES = (0.1, 0.5, 2.0)  # seconds before a read or a write that failed is tried again
REMOTE_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # of a remote store: each times 0.5 to 1.5, by chance
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
LASTING = (*FULL, *REFUSED, errno.EISDIR)
BUSY = (429, 503)  # statuses by which a store asks for fewer requests
PASSING = (*BUSY, 408, 409, 500, 502, 504)  # statuses of what may pass by itself
PRECONDITION = 412  # the status of a conditional write that found an object


def patiently(work: Callable[[], Result], *, remote: bool = True) -> Result:
    """Try again what failed for a reason that may pass by itself."""
    for pause in REMOTE_PAUSES if remote else PAUSES:
        try:
            return work()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(pause * random.uniform(0.5, 1.5) if remote else pause)
    return work()


def status_of(error: BaseException) -> int:
    """The HTTP status that a remote store answered; 0 where none is known."""
    for each in (error, error.__cause__):
        answer = getattr(each, "response", None)
        found = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        for value in (found.get("HTTPStatusCode"), getattr(each, "status", None)):
            if isinstance(value, int):
                return value
    return 0


def may_pass(error: Exception) -> bool:
    """Whether what failed may pass by itself."""
    status = status_of(error)
    if status:
        return status in PASSING
    if isinstance(error, OSError):
        lasting = (FileNotFoundError, FileExistsError, PermissionError)
        return error.errno not in LASTING and not isinstance(error, lasting)
    s3fs = sys.modules.get("s3fs.core")  # it says which of botocore's errors are of the connection
    return isinstance(error, s3fs.S3_RETRYABLE_ERRORS if s3fs else ())


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turns errors of the disk into sentences."""
    try:
        yield
    except OSError as error:
        if status_of(error) in BUSY:
            raise StorageError(
                f"the store of {path} asks for fewer requests (status {status_of(error)}: "
                f"{error}), and did so at {len(REMOTE_PAUSES) + 1} tries with growing pauses: run "
                "again later, or on fewer cores; finished runs are kept"
            ) from error
        if error.errno in FULL:
            raise StorageError(
                f"no space left for {path}: finished runs are kept; free some space and run again"
            ) from error
        if error.errno in REFUSED:
            raise StorageError(
                f"cannot write {path} ({error.strerror}): "
                "choose another folder with --home or change its permissions"
            ) from error
        raise StorageError(f"cannot use {path}: {error}") from error
    except CuveeError:
        raise
    except Exception as error:  # a remote file system's own: no credentials, not writable, ...
        raise StorageError(f"cannot use {path} ({type(error).__name__}): {error}") from error
