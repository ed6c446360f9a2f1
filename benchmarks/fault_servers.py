"""The servers that `faults.py` kills and starts again: those of `infra/local.py`, as processes.

PostgreSQL, a Prefect and an MLflow server on it, and two Ray nodes, all on 127.0.0.1.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from fault_study import ROOT, kill_tree

PATIENCE = 300.0
EXPERIMENT = "cuvee"


def local() -> Any:
    """`infra/local.py` as a module."""
    spec = importlib.util.spec_from_file_location("local_topology", ROOT / "infra/local.py")
    if spec is None or spec.loader is None:
        raise SystemExit("infra/local.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Servers:
    """A context in which the servers run; each can be killed and started again by its name.

    Attributes:
        settings: environment of a command that uses them.
        names: of the servers: "postgres", "prefect", "mlflow", "ray-0" (the head) and "ray-1".
    """

    names = ("postgres", "prefect", "mlflow", "ray-0", "ray-1")

    def __init__(self, folder: Path) -> None:
        os.environ.update(
            {"RAY_worker_niceness": "0"}
        )  # else trials wait for whatever else runs here
        self._local = local()
        self._team = self._local.Topology(folder, nodes=2)

    def __enter__(self) -> "Servers":
        self._team.__enter__()
        user, secret = self._team.environment["PREFECT_API_AUTH_STRING"].split(":", 1)
        self._prefect = httpx.Client(auth=(user, secret), timeout=60)
        env = self._team.environment
        signed = (env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"])
        self._mlflow = httpx.Client(auth=signed, timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._team.processes):
            self.kill(name)
        self._team.__exit__()

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a command that uses the servers, but for the store."""
        return {k: v for k, v in self._team.environment.items() if k != "CUVEE_STORE"}

    def process(self, name: str) -> psutil.Process:
        """The process of a server."""
        return psutil.Process(self._team.processes[name].pid)

    def kill(self, name: str) -> bool:
        """SIGKILL of a server and of all that it started; returns whether it was running."""
        process = self._team.processes[name]
        ran = process.poll() is None
        kill_tree(process.pid)
        self._team.stop(name, kill=True)
        return ran

    def mend(self) -> None:
        """Start what is down, and wait until every server does its work."""
        if "ray-0" not in self._team.processes or not self._runs("ray-0"):
            for name in ("ray-1", "ray-0"):
                if name in self._team.processes:
                    self.kill(name)
        for name in self.names:
            if name not in self._team.processes or not self._runs(name):
                self.revive(name)
        for check in (self._prefect_works, self._mlflow_works):
            _until(check)

    def revive(self, name: str) -> None:
        """Start a server that was killed, and wait until it answers."""
        checks: dict[str, Callable[[], bool]] = {
            "postgres": lambda: bool(self._local._listens(self._team.ports["postgres"])),
            "prefect": self._prefect_works,
            "mlflow": self._mlflow_works,
        }
        log = self._team.folder / f"{name}.log"
        if name.startswith("ray"):
            log.unlink(missing_ok=True)
        self._team.start(name)

        def up() -> bool:
            if not self._runs(name):
                self._team.start(name)
            if name.startswith("ray"):
                return b"runtime started" in log.read_bytes()
            return checks[name]()

        _until(up)

    def _runs(self, name: str) -> bool:
        return self._team.processes[name].poll() is None

    def _prefect_works(self) -> bool:
        url = self._team.environment["PREFECT_API_URL"]
        return bool(self._prefect.post(f"{url}/flows/count", json={}).is_success)

    def _mlflow_works(self) -> bool:
        return bool(self._ask("experiments/search", {"max_results": 1}) is not None)

    def packs(self) -> list[psutil.Process]:
        """Processes of the cluster that train a pack now."""
        found = []
        for name in ("ray-0", "ray-1"):
            with suppress(psutil.Error, KeyError):
                found += packs_under(self._team.processes[name].pid)
        return found

    def recorded(self, study: str) -> tuple[int, list[dict[str, Any]]]:
        """How many records a study of a name has, and the runs in them, deleted ones aside."""
        parents = list(self._runs_of(f"attributes.run_name = '{study}'"))
        runs: list[dict[str, Any]] = []
        for parent in parents:
            ours = f"tags.`mlflow.parentRunId` = '{parent['info']['run_id']}'"
            runs += self._runs_of(ours)
        return len(parents), runs

    def _runs_of(self, wanted: str) -> Iterator[dict[str, Any]]:
        found = self._ask("experiments/search", {"max_results": 1000})["experiments"]
        ids = [e["experiment_id"] for e in found if e["name"] == EXPERIMENT]
        body: dict[str, Any] = {"experiment_ids": ids, "filter": wanted, "max_results": 1000}
        while True:
            page = self._ask("runs/search", body)
            yield from page.get("runs", [])
            if not page.get("next_page_token"):
                return
            body["page_token"] = page["next_page_token"]

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._team.environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}"
        answer = self._mlflow.post(url, json=body)
        answer.raise_for_status()
        return dict(answer.json())


def packs_under(pid: int) -> list[psutil.Process]:
    """Processes below another that train a pack now: Ray names them after their task."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                if any("ray::pack-" in word for word in child.cmdline()):
                    found.append(child)
    return found


def _until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError, httpx.HTTPError):
            if check():
                return
        time.sleep(0.3)
    raise SystemExit("a server did not come up again; see the logs")
