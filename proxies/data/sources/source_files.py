"""Files of text where they lie: on this machine, in object storage, on the Hub, behind a URL.

Whatever fsspec opens is read. Credentials come from the environment, as each client takes them, and
never from a URL. What a store says of an object (its tag, its size, its time) is its identity, so a
listing reads no text; one that changes or vanishes while it is read is refused by name.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

import fsspec
from fsspec.utils import glob_translate

from cuvee.mixtures.errors import CuveeError, DataError
from cuvee.proxies.data.storage_errors import PASSING, REMOTE_PAUSES, patiently, status_of

ListingProgress = Callable[[int], None]  # called with the files that were listed so far
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
MAGIC = re.compile(r"[*?\[]")
BLOCK = 1 << 23  # bytes of an object that are fetched together
TAGS = ("ETag", "etag", "generation", "blob_id", "xet_hash", "Content-MD5", "Digest")
TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created")
REFUSED = re.compile(
    r"credential|authenti|authoriz|expired|forbidden|denied|signature|bad request|\b40[13]\b",
    re.IGNORECASE,
)
EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
CREDENTIALS = {  # no registry of clients knows them
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE; "
    "FSSPEC_S3_ANON=true for what is public",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS; FSSPEC_GS_TOKEN=anon for what is public",
    "azure": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, _SAS_TOKEN or a service "
    "principal; FSSPEC_AZ_ANON=true for what is public",
    "hf": "HF_TOKEN",
    **dict.fromkeys(("http", "https"), "~/.netrc (or the file that NETRC names); or sign the URL"),
}
QUERY = re.compile(r"[?#][^\s'\")]*")  # of a URL, which may hold a key
SILENT = {
    "ClientConnectionError",
    "ConnectionError",
    "TimeoutError",
    "TransportError",
    "HTTPClientError",
}
CONNECT, ANSWER = 20, 60  # seconds that a server has to be reached, and to go on answering
TEXTS = (".txt", ".text")
PROSE = (".md", ".rst", ".html", ".py")  # of a folder, read where there are no rows and no .txt
LINES = (".jsonl", ".ndjson")
SHEETS = (".csv", ".tsv")
TABLES = (".parquet", ".arrow")
TOKENS = {"megatron": ".bin", "olmo": ".npy", "datatrove": ".ds"}  # endings of token files
PACKINGS = ("", ".gz", ".zst", ".bz2", ".xz")
KINDS = (*TEXTS, *PROSE, *LINES, ".json", *SHEETS, *TABLES)
KNOWN = f"{', '.join(KINDS)}; all but tables also with {', '.join(PACKINGS[1:])}"


class StoredFile(NamedTuple):
    """One file.

    Attributes:
        url: a path where it is local.
        size: bytes; 0 where a server does not say.
        content: what its store says of it: tag, size, time; "" where it is local.
    """

    url: str
    size: int = 0
    content: str = ""

    @property
    def name(self) -> str:
        """The last part of the URL, without a query."""
        return url_name(self.url)


def url_name(url: str) -> str:
    """The name of a file by its URL or path."""
    path = urlsplit(url).path if url.startswith(("http://", "https://")) else url
    return path.rstrip("/").rpartition("/")[2]


def shown_url(url: str) -> str:
    """A path or URL as it may be shown: without a password, and without what a query holds."""
    return QUERY.sub("", re.sub(r"://[^/@]*@", "://", url)) if is_url(url) else url


def is_url(path: str) -> bool:
    """Whether a path names something elsewhere than among this machine's files."""
    return bool(URL.match(path)) and not path.startswith(("file://", "local://"))


def file_origin(url: str) -> str:
    """Where a file lies: the store and bucket of a URL, or this machine."""
    if not is_url(url):
        return "this machine"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}"


def local_path(path: str) -> Path:
    """A path on this machine, which may be written as a file:// URL."""
    return Path(re.sub("^(file|local)://", "", path)).expanduser()


def list_objects(url: str, progress: ListingProgress) -> tuple[list[StoredFile], str]:
    """What a URL names, sorted: one object, those that match a glob, or all within a folder.

    Args:
        url: of an object, a folder or a glob.
        progress: called with the number of objects seen, a page of the listing after the other.

    Returns:
        The objects, and the folder's URL, "" where they were named one by one or by a glob.

    Raises:
        DataError: nothing is there, or it may not be seen; says what to do.
    """
    if re.search(r"://[^/@]*:[^/@]*@", url):
        raise DataError(
            f"{shown_url(url)} is written with a password: set it in the environment instead"
        )
    with storage_errors(url):
        system, path = _opened_system(url)
        scheme = url.split("://", maxsplit=1)[0]
        http = scheme in ("http", "https")
        wild = MAGIC.search(path)
        magic = path.find("*") if http else wild.start() if wild else -1
        if magic < 0:
            info = _patiently(url, lambda: system.info(path))
            if info["type"] != "directory":
                return [_stored(info, url)], ""
            at, deep, matches = path.rstrip("/") + "/", True, None
        else:
            at, deep = path[:magic], "/" in path[magic:]
            matches = re.compile(glob_translate(path)).match
        found, seen = [], 0
        for seen, info in enumerate(_infos(system, at, deep=deep), 1):
            if seen % 1000 == 0:
                progress(seen)
            if info["type"] == "file" and (matches is None or matches(info["name"])):
                found.append(_stored(info, f"{scheme}://{info['name']}"))
        progress(seen)
    found.sort()
    return found, "" if matches else f"{url.rstrip('/')}/"


def _opened_system(url: str) -> tuple[Any, str]:
    """The client of a URL, and the URL as that names it."""
    how: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith(("http://", "https://")):
        import aiohttp  # here: no study but one of such URLs needs it

        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT, sock_read=ANSWER)
        how["client_kwargs"] = {"timeout": timeout, "trust_env": True}  # proxies and .netrc
    system, path = fsspec.core.url_to_fs(url, **how)
    return system, str(path)


def _patiently(url: str, work: Callable[[], Any]) -> Any:
    """Ask again where a web server is busy; the clients of stores do so by themselves."""
    return patiently(work) if url.startswith(("http://", "https://")) else work()


def _infos(system: Any, at: str, *, deep: bool) -> Iterator[dict[str, Any]]:
    """What lies under a prefix; of S3 a page at a time, since its client would hold them all."""
    if not hasattr(system, "call_s3"):
        folder = at.rpartition("/")[0]
        found = system.find(folder, detail=True).values() if deep else system.ls(folder, True)
        yield from found
        return
    bucket, prefix, _ = system.split_path(at)
    wanted = {"Bucket": bucket, "Prefix": prefix, **({} if deep else {"Delimiter": "/"})}
    while True:
        page = system.call_s3("list_objects_v2", **wanted)
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):  # how consoles mark a folder
                yield entry | {
                    "name": f"{bucket}/{entry['Key']}", "size": entry["Size"], "type": "file"
                }  # fmt: skip
        if not page.get("IsTruncated"):
            return
        wanted["ContinuationToken"] = page["NextContinuationToken"]


def _stored(info: dict[str, Any], url: str) -> StoredFile:
    name = str(info["name"])
    url = name if "://" in name else url
    tag = next((str(info[key]).strip('"') for key in TAGS if info.get(key)), "")
    time = next((info[key] for key in TIMES if info.get(key)), "")
    time = f"{time:%Y%m%dT%H%M%S}" if isinstance(time, datetime) else str(time)
    size = int(info.get("size") or 0)
    if tag or time:
        return StoredFile(url, size, f"{tag}:{size}:{time}")
    with open_stored(url) as file:  # a server that says nothing of what it serves
        digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    return StoredFile(url, size, digest.hexdigest())


def file_state(url: str) -> str:
    """What shows that a file was changed: of an object its identity, of a local file its times.

    Raises:
        DataError: it vanished, or may not be seen.
    """
    with storage_errors(url):
        if is_url(url):
            system, path = _opened_system(url)
            system.invalidate_cache()
            return _stored(_patiently(url, lambda: system.info(path)), url).content
        seen = local_path(url).stat()
        return f"{seen.st_ino}:{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}"


def open_stored(url: str, *, seeking: bool = False) -> BinaryIO:
    """A file for reading, wherever it lies; `seeking` for one that is read here and there."""
    if not is_url(url):
        return local_path(url).open("rb")
    with storage_errors(url):
        system, path = _opened_system(url)
        how = {"cache_type": "blockcache", "cache_options": {"maxblocks": 8}} if seeking else {}
        file = _patiently(url, lambda: system.open(path, block_size=BLOCK, **how))
        return io.BufferedReader(_RemoteFile(url, file))


class _RemoteFile(io.RawIOBase):
    """An object as it is read; what its client raises comes as a sentence that names it."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with storage_errors(self._url):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with storage_errors(self._url):
            data = _patiently(self._url, lambda: self._file.read(len(buffer)))
        size = getattr(self._file, "size", None)
        if not data and buffer and size and self._file.tell() < size:
            raise DataError(_broken_off(self._url, f"{self._file.tell():,} of {size:,} bytes"))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns what a client of storage raises into a `DataError` that says what to do."""
    try:
        yield
    except CuveeError:
        raise
    except ImportError as error:
        extra = EXTRAS.get(url.split("://", maxsplit=1)[0], "train")
        raise DataError(
            f'{shown_url(url)} takes a package that is not installed: pip install "cuvee[{extra}]" '
            f"({error})"
        ) from error
    except Exception as error:  # each client has errors of its own
        raise DataError(_trouble(url, error)) from error


def _trouble(url: str, error: Exception) -> str:
    """What went wrong with a file, and what to do."""
    if not is_url(url) and not isinstance(error, FileNotFoundError):
        return f"{url} cannot be read: {getattr(error, 'strerror', None) or error}"
    chain = [error, *([error.__cause__] if error.__cause__ else [])]
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    status, shown = status_of(error), shown_url(url)
    told = QUERY.sub("", f"{type(chain[-1]).__name__}: {chain[-1]}")
    why = f"status {status}" if status else told
    why = " ".join(why.split())[:300]
    if "FileExpired" in kinds:
        return changed_sentence(url)
    if isinstance(error, FileNotFoundError) and status in (0, 404, 410) and not kinds & SILENT:
        return f"no file at {shown}: it is not there, or not any more"
    refused = isinstance(error, PermissionError) or REFUSED.search(f"{type(error)} {error}")
    if status in (401, 403) or (status not in PASSING and refused):
        scheme = url.split("://", maxsplit=1)[0]
        names = CREDENTIALS.get(EXTRAS.get(scheme, scheme), "see what its client reads")
        return (
            f"{shown} may not be read: the credentials are missing, have expired or do not suffice "
            f"({why}). They are taken from the environment: {names}"
        )
    if status in PASSING:
        return (
            f"{shown} cannot be read now: its server is busy or out of order ({why}) and stayed so "
            f"at {len(REMOTE_PAUSES) + 1} tries with growing pauses; run again later"
        )
    if kinds & SILENT:
        return f"{shown} cannot be reached: {urlsplit(url).hostname} does not answer ({why})"
    if "ClientPayloadError" in kinds:
        return _broken_off(url, "a part")
    return f"{shown} cannot be read: {why}"


def _broken_off(url: str, after: str) -> str:
    return f"{shown_url(url)} broke off after {after}, and nothing of it is kept: run again"


def changed_sentence(url: str) -> str:
    """What is said of a file that is not any more what was listed."""
    return (
        f"{shown_url(url)} changed while it was read, and nothing of it is kept: run again once "
        "nobody writes there"
    )


def file_kind(path: Path | str) -> tuple[str, str]:
    """A file's kind and packing by its name, such as (".jsonl", ".gz"); ("", "") if unknown."""
    name = url_name(str(path)).lower()
    packing = file_packing(name)
    ending = os.path.splitext(name.removesuffix(packing))[1]
    known = ending in KINDS and not (packing and ending in TABLES)
    return (ending, packing) if known else ("", "")


def file_packing(name: str) -> str:
    """How a file is packed by its name, such as ".gz"; "" if it is not."""
    return next((end for end in PACKINGS[1:] if name.lower().endswith(end)), "")
