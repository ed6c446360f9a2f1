"""The team's topology with real processes on 127.0.0.1: PostgreSQL, Prefect, MLflow, two Ray nodes.

For trying it out without containers:

    python infra/local.py /tmp/cuvee-team        # until Ctrl-C; prints how to use it
    . /tmp/cuvee-team/environment.sh             # in another shell: then `cuvee run ...`

What compose.yaml starts in containers is started here with the same settings. Needs PostgreSQL's
programs (Debian: `apt-get install postgresql`) and `pip install psycopg2-binary flask-wtf`.
Secrets are taken from the environment or made up, and written to files that only you can read.
"""

import argparse
import contextlib
import getpass
import glob
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
UNPRIVILEGED = "postgres"  # whom PostgreSQL runs as where this program is run by root
PATIENCE = 600.0  # seconds; first starts on a busy machine take minutes
HOST = "127.0.0.1"
SERVERS = ("postgres", "prefect", "mlflow", "ray")
SECRETS = ("CUVEE_DB_PASSWORD", "CUVEE_MLFLOW_PASSWORD", "CUVEE_PREFECT_AUTH", "RAY_AUTH_TOKEN")


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs, or None if it is not installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
    other = shutil.which("postgres")
    return Path(found[-1]).parent if found else Path(other).parent if other else None


class Topology:
    """The servers of a team, started one after the other; a context that ends them.

    Args:
        folder: their data, logs and secrets; kept, so that the next start goes on from it.
        nodes: Ray nodes, each with one core.
        servers: which of them to start; what the others would need of PostgreSQL is there.

    Attributes:
        environment: what a client sets to use them.
        processes: by name: "postgres", "prefect", "mlflow", "ray-0", "ray-1", ...
    """

    def __init__(self, folder: Path, *, nodes: int = 2, servers: Sequence[str] = SERVERS) -> None:
        self.folder, self._nodes = Path(folder).resolve(), nodes
        self._servers = tuple(servers)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._secrets = self._made_up()
        self.ports = {name: _free_port() for name in ("postgres", "prefect", "mlflow", "ray")}
        self.environment = {
            "PREFECT_API_URL": f"http://{HOST}:{self.ports['prefect']}/api",
            "PREFECT_API_AUTH_STRING": self._secrets["CUVEE_PREFECT_AUTH"],
            "MLFLOW_TRACKING_URI": f"http://{HOST}:{self.ports['mlflow']}",
            "MLFLOW_TRACKING_USERNAME": "cuvee",
            "MLFLOW_TRACKING_PASSWORD": self._secrets["CUVEE_MLFLOW_PASSWORD"],
            "RAY_ADDRESS": f"{HOST}:{self.ports['ray']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._secrets["RAY_AUTH_TOKEN"],
            "CUVEE_STORE": str(self.folder / "store"),
        }

    def __enter__(self) -> "Topology":
        try:
            for name in self._servers:
                getattr(self, f"_start_{name}")()
            self._await()
        except BaseException:
            self.__exit__()
            raise
        lines = [f"export {name}={shlex.quote(v)}\n" for name, v in self.environment.items()]
        self._private("environment.sh", "".join(lines))
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self.processes)):
            self.stop(name)

    def stop(self, name: str, *, kill: bool = False) -> None:
        """End a server and what it started; with `kill`, without a word."""
        process = self.processes.pop(name)
        gentle = signal.SIGINT if name == "postgres" else signal.SIGTERM  # SIGINT: fast shutdown
        for number in (signal.SIGKILL,) if kill else (gentle, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
                break

    def start(self, name: str) -> None:
        """Start a server again, as it was."""
        command, settings = self._commands[name]
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder if name != "postgres" else "/",
                env={**os.environ, **settings},
                start_new_session=True,
            )

    def _run(self, name: str, command: list[str], settings: Mapping[str, str]) -> None:
        self._commands[name] = (command, dict(settings))
        self.start(name)

    def _made_up(self) -> dict[str, str]:
        file = self.folder / "secrets"
        kept = {}
        if file.exists():
            kept = dict(line.split("=", 1) for line in file.read_text().splitlines())
        values = {
            name: os.environ.get(name) or kept.get(name) or secrets.token_urlsafe(24)
            for name in SECRETS
        }
        if ":" not in values["CUVEE_PREFECT_AUTH"]:
            values["CUVEE_PREFECT_AUTH"] = f"cuvee:{values['CUVEE_PREFECT_AUTH']}"
        self._private("secrets", "".join(f"{name}={value}\n" for name, value in values.items()))
        return values

    def _private(self, name: str, content: str) -> Path:
        path = self.folder / name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(content)
        return path

    def database(self, name: str, driver: str) -> str:
        """The URL of a database, for SQLAlchemy; holds its password."""
        password = self._secrets["CUVEE_DB_PASSWORD"]
        return f"postgresql+{driver}://cuvee:{password}@{HOST}:{self.ports['postgres']}/{name}"

    def _start_postgres(self) -> None:
        programs = postgres_programs()
        if programs is None:
            raise SystemExit("PostgreSQL is not installed; Debian: apt-get install postgresql")
        data, root = self.folder / "postgres", os.getuid() == 0
        as_user = ["runuser", "-u", UNPRIVILEGED, "--"] if root else []
        if not (data / "PG_VERSION").exists():
            data.mkdir(exist_ok=True)
            words = self._private("database-password", self._secrets["CUVEE_DB_PASSWORD"])
            if root:
                for path in (data, words):
                    shutil.chown(path, UNPRIVILEGED)
                for parent in [self.folder, *self.folder.parents]:
                    _let_through(parent)
            made = [str(programs / "initdb"), "-D", str(data), "-U", "cuvee", "-A", "scram-sha-256"]
            made += ["--pwfile", str(words), "--encoding=UTF8", "--locale=C"]
            subprocess.run([*as_user, *made], check=True, stdout=subprocess.DEVNULL, cwd="/")
            words.unlink()
        port = str(self.ports["postgres"])
        command = [str(programs / "postgres"), "-D", str(data), "-p", port, "-h", HOST, "-k", ""]
        self._run("postgres", [*as_user, *command], {})
        self._until("postgres", lambda: _listens(self.ports["postgres"]))
        for name in ("prefect", "mlflow", "mlflow_auth"):
            self._create(programs, name)

    def _create(self, programs: Path, name: str) -> None:
        command = [str(programs / "createdb"), "-h", HOST, "-p", str(self.ports["postgres"])]
        environment = {**os.environ, "PGPASSWORD": self._secrets["CUVEE_DB_PASSWORD"]}

        def made() -> bool:
            done = subprocess.run(
                [*command, "-U", "cuvee", name],
                check=False, capture_output=True, text=True, env=environment, cwd="/",
            )  # fmt: skip
            return done.returncode == 0 or "already exists" in done.stderr

        _until(made, f"the database {name}")

    def _start_prefect(self) -> None:
        self._run(
            "prefect",
            [
                *(str(BIN / "prefect"), "server", "start"),
                *("--host", HOST, "--port", str(self.ports["prefect"])),
            ],
            {
                "PREFECT_HOME": str(self.folder / "prefect"),
                "PREFECT_API_DATABASE_CONNECTION_URL": self.database("prefect", "asyncpg"),
                "PREFECT_SERVER_API_AUTH_STRING": self._secrets["CUVEE_PREFECT_AUTH"],
                "PREFECT_API_AUTH_STRING": self._secrets["CUVEE_PREFECT_AUTH"],
                "PREFECT_API_URL": self.environment["PREFECT_API_URL"],
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                # A busy database is slow, not broken: the server's 10 and 5 s end in an error 500.
                "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
                "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
            },
        )

    def _start_mlflow(self) -> None:
        auth = self._private(
            "mlflow-auth.ini",
            "[mlflow]\ndefault_permission = EDIT\nadmin_username = cuvee\n"
            "auth_cache_ttl_seconds = 60\n"  # else each request pays for a hash of the password
            f"database_uri = {self.database('mlflow_auth', 'psycopg2')}\n"
            f"admin_password = {self._secrets['CUVEE_MLFLOW_PASSWORD']}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        )
        self._run(
            "mlflow",
            [
                *(str(BIN / "mlflow"), "server", "--app-name", "basic-auth", "--workers", "1"),
                *("--host", HOST, "--port", str(self.ports["mlflow"])),
                *("--backend-store-uri", self.database("mlflow", "psycopg2")),
                *("--artifacts-destination", str(self.folder / "artifacts")),
            ],
            {
                "MLFLOW_AUTH_CONFIG_PATH": str(auth),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": self._secrets["CUVEE_DB_PASSWORD"],
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
        )

    def _start_ray(self) -> None:
        settings = {name: self.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        settings |= {"RAY_USAGE_STATS_ENABLED": "0"}
        node = ["--num-cpus=1", "--disable-usage-stats", "--block"]
        node += ["--object-store-memory=100000000"]
        sockets = f"/tmp/cuvee-ray-{self.ports['ray']}"  # noqa: S108 (sockets need a short path)
        for k in range(self._nodes):
            where = [f"--address={HOST}:{self.ports['ray']}"]
            if k == 0:
                where = ["--head", f"--port={self.ports['ray']}", f"--temp-dir={sockets}"]
                where += ["--include-dashboard=false", f"--node-ip-address={HOST}"]
            log = self.folder / f"ray-{k}.log"
            log.unlink(missing_ok=True)
            self._run(f"ray-{k}", [str(BIN / "ray"), "start", *where, *node], settings)
            self._until(f"ray-{k}", lambda log=log: b"runtime started" in log.read_bytes())

    def _until(self, name: str, check: Callable[[], bool]) -> None:
        """Wait for a server; one that gave up, as Ray does after 30 s, is started again."""

        def up() -> bool:
            if self.processes[name].poll() is not None:
                self.start(name)
            return check()

        _until(up, f"{name} ({self.folder / name}.log)")

    def _await(self) -> None:
        for name, url in (("prefect", "PREFECT_API_URL"), ("mlflow", "MLFLOW_TRACKING_URI")):
            if name not in self.processes:
                continue
            self._until(name, lambda url=url: _answers(f"{self.environment[url]}/health"))


def _let_through(folder: Path) -> None:
    """Let other users pass through a folder of ours, as PostgreSQL's user must to its data."""
    if folder.stat().st_uid == os.getuid() and folder != Path("/"):
        folder.chmod(folder.stat().st_mode | 0o011)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.create_connection((HOST, port), timeout=1):
        return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (our own address)
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it answers, and asks who we are


def _until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if check():
                return
        time.sleep(0.3)
    raise SystemExit(f"{what} did not come up in {PATIENCE:.0f} s; see the logs")


@contextlib.contextmanager
def _until_told() -> Iterator[None]:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        yield


def main() -> None:
    """Start everything, say how to use it, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description="A team's servers on 127.0.0.1, to try out.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=2, help="Ray nodes of one core each")
    chosen = parser.parse_args()
    with _until_told(), Topology(chosen.folder, nodes=chosen.nodes) as team:
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
            sys.stdout.write(f"{name:20} {team.environment[name]}\n")
        sys.stdout.write(
            f"Use it, {getpass.getuser()}: . {team.folder}/environment.sh\n"
            "Prefect's and MLflow's user is cuvee; the passwords are in it. Ctrl-C ends all.\n"
        )
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
