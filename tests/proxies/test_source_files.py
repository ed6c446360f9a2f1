"""Text where teams keep it: object storage, the Hub, a URL; in parts, and changed meanwhile."""

import contextlib
import functools
import http.server
import io
import itertools
import json
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.config import conf, set_conf_env
from fsspec.implementations.memory import MemoryFileSystem
from s3fs import S3FileSystem

from cuvee.mixtures.errors import DataError
from cuvee.proxies.data import storage_errors
from cuvee.proxies.data.sources import source_files
from cuvee.proxies.data.sources.documents import TextDocument
from cuvee.proxies.data.sources.hub_datasets import dataset_files
from cuvee.proxies.data.sources.text_files import Files

AZURITE = (  # the key that everyone's has
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
TEXTS = ["first ünï", "second\nline", "third"]
ROWS = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)


def documents_of(source):
    """The text of each document, and what is unusable as it is."""
    return [x.text if isinstance(x, TextDocument) else x for x in source.documents()]


def put(url, data):
    S3FileSystem(use_listings_cache=False).pipe_file(
        url, data.encode() if isinstance(data, str) else data
    )
    return url


def parquet(texts, **options):
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink, **options)
    return sink.getvalue()


def test_objects_are_found_and_read_as_files_are(s3):
    """Catches a folder, a glob or a list of objects that reads other ones, or in another order, and
    a table that cannot be read here and there over the network."""
    put(f"{s3}/web/b.jsonl", ROWS)
    put(f"{s3}/web/deep/a.parquet", parquet(["in a table"]))
    put(f"{s3}/web/README.md", "notes")
    put(f"{s3}/web2/c.txt", "not in the folder")
    assert documents_of(Files(f"{s3}/web")) == documents_of(Files(f"{s3}/web/"))
    source = Files(f"{s3}/web/")
    assert documents_of(source) == [*TEXTS, "in a table"]
    assert source.notice == "1 file is not read beside 2 that are: README.md"
    assert documents_of(Files(f"{s3}/web/*.jsonl")) == TEXTS
    assert documents_of(Files(f"{s3}/web*/**/*.parquet")) == ["in a table"]
    assert documents_of(Files(f"{s3}/w*/?.txt")) == ["not in the folder"]
    assert documents_of(Files((f"{s3}/web2/c.txt", f"{s3}/web/b.jsonl"))) == [
        "not in the folder",
        *TEXTS,
    ]
    with pytest.raises(DataError, match=f"no file at {s3}/web/none.jsonl"):
        documents_of(Files(f"{s3}/web/none.jsonl"))
    with pytest.raises(DataError, match=r"no file at .*none\*"):
        documents_of(Files(f"{s3}/web/none*"))


def test_an_object_is_known_by_what_its_store_says_of_it(s3, s3_server):
    """Catches text that is read to know whether it changed, one that is fetched twice to be read
    once, and a change that does not show."""
    url = put(f"{s3}/a.jsonl", ROWS)
    before = Files(url).identity
    s3_server.asked.clear()
    assert Files(url).identity == before
    assert {method for method, _ in s3_server.asked} == {"HEAD"}
    source = Files(url)
    [part] = source.parts()
    assert len(list(source.read(part))) == len(TEXTS)
    assert [method for method, _ in s3_server.asked].count("GET") == 1
    put(url, ROWS.replace("third", "other"))
    assert Files(url).identity != before


def test_a_long_listing_comes_in_pages_and_says_how_far_it_is(s3, s3_server):
    """Catches a listing that is silent to its end, and one that asks for each object by itself."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    bucket, backend = s3.removeprefix("s3://"), s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for i in range(1200):
        backend.put_object(bucket, f"web/{i:04}.txt", b"x")
    s3_server.asked.clear()
    told = []
    source = Files(f"{s3}/web/")
    found, left = source.list_files(told.append)
    assert told == [1000, 1200] and len(found) == 1200 and not left
    lists = [path for method, path in s3_server.asked if method == "GET"]
    assert len(s3_server.asked) < 8 and len(lists) >= 2
    assert len(source.parts()) == 1200
    assert len(pickle.dumps(source)) < 2000  # what travels to workers with every part
    [document] = pickle.loads(pickle.dumps(source)).read(source.parts()[7])
    assert document.text == "x"


@pytest.mark.parametrize("change", ["before", "within", "gone", "gone within"])
def test_an_object_that_changes_or_vanishes_while_it_is_read_is_refused(s3, monkeypatch, change):
    """Catches a corpus of half an old and half a new object, kept under the identity of either."""
    monkeypatch.setattr(source_files, "BLOCK", 5 << 20)  # the least that S3's client fetches
    url = put(f"{s3}/a.jsonl", ROWS + (json.dumps({"text": "x" * 999_990}) + "\n") * 8)
    source = Files(url)
    [part] = source.parts()

    def meddle():
        if change.startswith("gone"):
            S3FileSystem().rm_file(url)
        else:
            put(url, ROWS * 1000)

    if "within" not in change:
        meddle()
    found = source.read(part)
    with pytest.raises(DataError, match=f"{url}.*(changed while|not any more)"):
        next(found)
        if "within" in change:
            meddle()
        list(found)


def test_missing_and_expired_credentials_are_told_in_a_sentence(s3, s3_server, monkeypatch):
    """Catches the traceback of a client, and a sentence that does not say where keys belong."""
    url = put(f"{s3}/a.jsonl", ROWS)
    said = f"{url} may not be read.*environment: AWS_ACCESS_KEY_ID.*AWS_PROFILE"
    with s3_server.failing(lambda method, path: 403), pytest.raises(DataError, match=said):
        documents_of(Files(url))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=said):
        documents_of(Files(url))
    with pytest.raises(DataError, match="https://x.org/a.txt is written with a password") as caught:
        documents_of(Files("https://ada:secret@x.org/a.txt"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("url", "extra"), [("gs://b/a.txt", "gcs"), ("az://b/a.txt", "azure")])
def test_a_client_that_is_not_installed_is_named(monkeypatch, url, extra):
    """Catches a traceback of an import for a bucket of another vendor."""
    for name in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, name, None)
    for scheme in ("gs", "az"):  # which fsspec keeps, once it was opened
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(DataError, match=rf'pip install "cuvee\[{extra}\]"'):
        documents_of(Files(url))


@pytest.mark.slow
def test_buckets_of_google_are_read(monkeypatch):
    """Catches an object of Google's without an identity, or one that may change unseen."""
    from gcp_storage_emulator.server import create_server

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="web")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # a call that it has not
    set_conf_env(conf)
    try:
        check_bucket(fsspec.filesystem("gs"), "gs://web")
    finally:
        server.stop()
        conf.pop("gs")


@pytest.mark.slow
def test_containers_of_azure_are_read(tmp_path, monkeypatch):
    """Catches what `test_buckets_of_google_are_read` does, of the third vendor."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite is not installed (npm install -g azurite)")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    place = f"http://127.0.0.1:{port}/devstoreaccount1"
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE};"
        f"BlobEndpoint={place};",
    )
    how = [
        "--blobPort",
        str(port),
        "--location",
        str(tmp_path),
        "--silent",
        "--skipApiVersionCheck",
    ]
    with subprocess.Popen([program, *how, "--disableTelemetry"]) as server:
        try:
            wait_for(port)
            store = fsspec.filesystem("az")
            store.mkdir("web")
            check_bucket(store, "az://web")
        finally:
            server.terminate()


def wait_for(port):
    """Until something listens."""
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(port)


def check_bucket(store, url):
    """What holds of every store of objects."""
    store.pipe_file(f"{url}/a/0.jsonl", ROWS.encode())
    store.pipe_file(f"{url}/a/1.txt", b"plain")
    assert documents_of(Files(f"{url}/a/")) == [*TEXTS, "plain"]
    source = Files(f"{url}/a/*.jsonl")
    [part] = source.parts()
    assert [x.text for x in source.read(part)] == TEXTS and part.size == len(ROWS.encode())
    assert Files(f"{url}/a/*.jsonl").identity == source.identity
    store.pipe_file(f"{url}/a/0.jsonl", ROWS.upper().encode())
    with pytest.raises(DataError, match=f"{url}/a/0.jsonl changed while"):
        list(source.read(part))
    with pytest.raises(DataError, match=f"no file at {url}/none"):
        documents_of(Files(f"{url}/none"))


class _Served(http.server.SimpleHTTPRequestHandler):
    """A folder, unless its server has a fault: a status, or a function that answers."""

    def log_message(self, *_):
        """Say nothing."""

    def send_head(self):
        fault = self.server.fault(self) if self.server.fault else None
        self.server.asked += 1
        if fault:
            self.send_error(fault)
        return None if fault or self.server.answered(self) else super().send_head()


@pytest.fixture
def served(tmp_path):
    """A folder, the URL at which it is served, and the server."""
    handler = functools.partial(_Served, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.fault, server.answered, server.asked = None, lambda request: False, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}", server
    server.shutdown()


@pytest.fixture
def quick(monkeypatch):
    """Without pauses between tries."""
    pauses = (0.0,) * len(storage_errors.REMOTE_PAUSES)
    monkeypatch.setattr(storage_errors, "REMOTE_PAUSES", pauses)


@pytest.mark.parametrize(
    ("status", "said", "tries"),
    [
        (401, "may not be read: the credentials .*status 401.*netrc", 1),
        (403, "may not be read: the credentials .*status 403", 1),
        (404, "no file at", 1),
        (418, "cannot be read: status 418", 1),
        (429, r"busy or out of order \(status 429\).* 6 tries", 6),
        (503, r"busy or out of order \(status 503\).* 6 tries", 6),
    ],
)
def test_what_a_web_server_answers_is_told_for_what_it_is(served, quick, status, said, tries):
    """Catches "not there" for every answer, and a key in a query that is shown or logged."""
    folder, url, server = served
    (folder / "a.jsonl").write_text(ROWS)
    server.fault = lambda request: status
    with pytest.raises(DataError, match=said) as caught:
        documents_of(Files(f"{url}/a.jsonl?key=secret"))
    assert f"{url}/a.jsonl" in str(caught.value) and "secret" not in str(caught.value)
    assert server.asked == 2 * tries  # HEAD, then GET


def test_a_busy_web_server_is_asked_again(served, quick):
    """Catches a study that ends for one answer of 503, before and while a file is read."""
    folder, url, server = served
    (folder / "a.jsonl").write_text(ROWS)
    server.fault = lambda request: 503 if server.asked in (0, 1, 2, 4, 7) else None
    assert documents_of(Files(f"{url}/a.jsonl")) == TEXTS and server.asked > 8


@pytest.mark.parametrize("length", [None, 40])
def test_a_body_that_breaks_off_is_refused(served, quick, length):
    """Catches a file that ends early, with or without a word of its server, taken for a whole."""
    folder, url, server = served
    (folder / "a.txt").write_text("x" * 1000)

    def answer(request):
        if request.command == "HEAD":
            return False
        if not request.headers["Range"].startswith("bytes=0-"):
            request.send_error(416)
            return True
        request.send_response(200)
        request.send_header("Content-Length", str(length or 1000))
        request.end_headers()
        request.wfile.write(b"x" * 40)
        return True

    source = Files(f"{url}/a.txt?key=secret")
    assert source.files[0].size == 1000
    server.answered = answer
    with pytest.raises(DataError, match=f"{url}/a.txt broke off after") as caught:
        documents_of(source)
    assert "secret" not in str(caught.value)


def test_a_host_that_does_not_answer_is_told_from_a_file_that_is_not_there(monkeypatch):
    """Catches "not there" for a server that is down, or that takes a request and stays silent."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(source_files, "ANSWER", 0.2)
        url = f"http://127.0.0.1:{port}/a.txt"
        with pytest.raises(DataError, match=f"{url} cannot be reached: 127.0.0.1 does not answ"):
            documents_of(Files(f"{url}?key=secret"))
    monkeypatch.setattr(source_files, "ANSWER", 60)
    with pytest.raises(DataError, match="cannot be reached.* does not answer") as caught:
        documents_of(Files(f"{url}?key=secret"))
    assert "secret" not in str(caught.value)


def test_credentials_of_a_web_server_come_from_the_environment(served, tmp_path, monkeypatch):
    """Catches a sentence that names ~/.netrc where nobody reads it."""
    folder, url, server = served
    (folder / "a.jsonl").write_text(ROWS)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password secret\n")
    netrc.chmod(0o600)
    server.fault = lambda request: None if request.headers.get("Authorization") else 401
    monkeypatch.setenv("NETRC", str(netrc))
    assert documents_of(Files(f"{url}/a.jsonl")) == TEXTS


def test_a_file_behind_a_url_is_read_by_its_name(served):
    """Catches a query taken for a part of the name, and an identity of the address alone."""
    folder, url, _ = served
    (folder / "a.jsonl").write_text(ROWS)
    source = Files(f"{url}/a.jsonl?download=true")
    assert documents_of(source) == TEXTS and source.files[0].size == len(ROWS)
    before = source.identity
    (folder / "a.jsonl").write_text(ROWS * 2)
    assert Files(f"{url}/a.jsonl?download=true").identity != before
    with pytest.raises(DataError, match=f"no file at {url}/b.jsonl"):
        documents_of(Files(f"{url}/b.jsonl"))


def test_whatever_fsspec_opens_is_read():
    """Catches a reader that knows S3 alone: a store is what fsspec knows by its scheme."""
    store = MemoryFileSystem()
    store.pipe("/text-of-a-test/web/a.jsonl", ROWS.encode())
    store.pipe("/text-of-a-test/web/deep/b.txt", b"deep")
    assert documents_of(Files("memory://text-of-a-test/web")) == [*TEXTS, "deep"]
    assert documents_of(Files("memory://text-of-a-test/web/*.jsonl")) == TEXTS
    store.rm("/text-of-a-test", recursive=True)


@pytest.mark.parametrize("form", ["jsonl", "ndjson", "parquet", "arrow"])
@pytest.mark.parametrize("most", [61, 700, 3000])
def test_parts_of_a_file_hold_every_row_once(tmp_path, form, most):
    """Catches a row lost or doubled where two parts meet, and a place that counts from the part."""
    texts = [f"{i} " + "ü" * (i % 50) for i in range(400)]
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        path.write_bytes(parquet(texts, row_group_size=30))
    elif form == "arrow":
        table = pa.table({"text": texts})
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=30)
    else:
        path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts))
    source = Files(str(path), part_bytes=most)
    parts = source.parts()
    assert len(parts) > 2 and len({part.content for part in parts}) == 1
    assert parts[-1].stop is None
    assert all(one.stop == other.start for one, other in itertools.pairwise(parts))
    found = [document.text for part in parts for document in source.read(part)]
    assert found == texts == documents_of(Files(str(path)))


def test_a_bad_row_within_a_part_is_named_by_its_place_in_the_file(tmp_path):
    """Catches "line 2" for a row in the middle of a file that is read in parts."""
    bad = tmp_path / "a.jsonl"
    bad.write_text(ROWS * 20 + '{"text": 5}\n' + ROWS)
    source = Files(str(bad), part_bytes=200)
    with pytest.raises(
        DataError, match=rf"a\.jsonl, line at byte {len(ROWS) * 20:,}: field 'text'"
    ):
        [list(source.read(part)) for part in source.parts()]
    table = tmp_path / "a.parquet"
    table.write_bytes(parquet([*map(str, range(100)), None], row_group_size=30))
    source = Files(str(table), part_bytes=1)
    with pytest.raises(DataError, match=r"a\.parquet, row 101: column 'text' is null"):
        [list(source.read(part)) for part in source.parts()]


def test_a_data_set_is_read_by_config_and_split(tmp_path):
    """Catches every file of a repository taken for one split, and a config that is ignored."""
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - {split: train, path: 'en/*.jsonl'}\n"
        "  - {split: test, path: held.jsonl}\n"
        "- config_name: de\n  data_files: 'de/*.parquet'\n---\n"
    )
    for folder in ("en", "de"):
        (tmp_path / folder).mkdir()
    (tmp_path / "en" / "0.jsonl").write_text(ROWS)
    (tmp_path / "held.jsonl").write_text(json.dumps({"text": "held"}) + "\n")
    (tmp_path / "de" / "0.parquet").write_bytes(parquet(["deutsch"]))
    name = str(tmp_path)
    assert documents_of(Files(dataset_files(name, "en", "train", None))) == TEXTS
    assert documents_of(Files(dataset_files(name, "en", "test", None))) == ["held"]
    assert documents_of(Files(dataset_files(name, "de", "train", None))) == ["deutsch"]
    with pytest.raises(DataError, match="config en has no split 'dev'; it has: train, test"):
        dataset_files(name, "en", "dev", None)
    with pytest.raises(DataError, match="cannot be opened.*en"):
        dataset_files(name, "fr", "train", None)
