"""What every test runs under: quiet components, one thread per process, its own Prefect home.

What is dear and only looked at is made once: `shared` for a whole run, an API and the migrations of
a record for all files, a Ray for each.
"""

import contextlib
import fcntl
import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuvee.flows.workspace import OFFLINE, QUIET

for _name, _value in {**QUIET, **OFFLINE}.items():
    os.environ[_name] = _value
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="cuvee-tests-prefect-")
for _name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "CUVEE_STORE", "CUVEE_HOME"):
    os.environ.pop(_name, None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """A quarter of it went to looking for garbage among 660,000 objects that stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable], Path]:
    """Makes a folder that one worker fills and all of them read: `shared(name, fill)`."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = root / f"shared-{name}", root / f"shared-{name}.done"
        with open(root / f"shared-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():  # nor after a worker that failed on the way
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def recommended(shared: Callable) -> Path:
    """A corpus and a home with a recommendation that nobody has approved: copy what you change."""

    def fill(root: Path) -> None:
        import recommended_study

        from cuvee.flows.workspace import Workspace
        from cuvee.tasks.tracking.mlflow import open_backend

        with _stand_in():
            recommended_study.make(root / "corpus", Workspace(root / "home"))
        open_backend(Workspace(root / "home").record).versions("none")  # a new one takes seconds
        (root / "home").chmod(0o700)  # as `open_workspace` makes it

    return shared("recommended", fill)


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """An embedded Prefect API, for tests whose subject is not its start or its end."""
    from cuvee.flows.execution.prefect_server import PrefectApi

    with PrefectApi(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local Ray of two cores for a file: executors join what is already initialized."""
    import ray

    from cuvee.flows.execution.ray_executor import RayExecutor, wait_for_clusters

    with RayExecutor(tmp_path_factory.mktemp("ray"), device="cpu", cores=2) as executor:
        assert executor.slots == 2
        yield
    wait_for_clusters()
    assert not ray.is_initialized()


@pytest.fixture(scope="session")
def s3_server() -> Iterator:
    """A real S3 API on this machine; `s3` gives a test a bucket of its own in it."""
    from s3_server import S3Server

    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a fresh bucket, which this process and those that it starts find by environment."""
    from s3fs import S3FileSystem

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # of botocore, which waits between them
    S3FileSystem.clear_instance_cache()  # a file system keeps the endpoint that it was made with
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}"


@contextlib.contextmanager
def _stand_in() -> Iterator[None]:
    from cuvee.tasks.report import page

    def draw(_plot: object, name: str) -> tuple[str, bytes]:
        return f'<svg id="{name}"></svg>', b"\x89PNG"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "draw_picture", draw)
        yield


@pytest.fixture
def quick_pictures() -> Iterator[None]:
    """Reports with a stand-in for every picture, in a test that is of their words."""
    with _stand_in():
        yield


@pytest.fixture(scope="module")
def quick_pictures_everywhere() -> Iterator[None]:
    """The same for a whole file."""
    with _stand_in():
        yield


@pytest.fixture(scope="session", autouse=True)
def _copied_record(shared: Callable) -> None:
    """A new SQLite record of MLflow is a copy of one: its migrations take seconds each time."""
    from cuvee.tasks.tracking.mlflow import MlflowBackend

    def fill(folder: Path) -> None:
        from mlflow import MlflowClient

        MlflowClient(tracking_uri=f"sqlite:///{folder}/empty.db").search_experiments()

    def connect(tracker: MlflowBackend) -> object:
        path = Path(tracker._uri.removeprefix("sqlite:///"))
        if path.is_absolute() and not path.exists():
            empty = shared("record", fill) / "empty.db"
            with contextlib.suppress(OSError):  # which is then the tracker's to tell
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(empty, path)
        return plain(tracker)

    plain, MlflowBackend._connect = MlflowBackend._connect, connect
