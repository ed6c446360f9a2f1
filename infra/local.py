"""The team's topology with real processes on 127.0.0.1: PostgreSQL, Prefect, MLflow, two Ray nodes.

For trying it out without containers:

    python infra/local.py /tmp/cuvee-team        # until Ctrl-C; prints how to use it
    . /tmp/cuvee-team/environment.sh             # in another shell: then `cuvee run ...`

What compose.yaml starts in containers is started here with the same settings. Needs PostgreSQL's
programs (Debian: `apt-get install postgresql`) and `pip install 'cuvee[all]'`.
Secrets are taken from the environment or made up, and written to files that only you can read.
"""

import argparse
import contextlib
import getpass
import glob
import itertools
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
UNPRIVILEGED = "postgres"  # whom PostgreSQL runs as where this program is run by root
PATIENCE = 600.0  # seconds; first starts on a busy machine take minutes
HOST = "127.0.0.1"
SERVERS = ("postgres", "prefect", "mlflow", "ray")
SECRETS = (
    "CUVEE_DB_PASSWORD",
    "CUVEE_PREFECT_DB_PASSWORD",
    "CUVEE_MLFLOW_DB_PASSWORD",
    "CUVEE_MLFLOW_PASSWORD",
    "CUVEE_MLFLOW_KEY",
    "CUVEE_PREFECT_AUTH",
    "RAY_AUTH_TOKEN",
)
ROLES = {"prefect": "prefect", "mlflow": "mlflow", "mlflow_auth": "mlflow"}  # who owns a database
DATABASES = Path(__file__).parent / "kubernetes" / "databases.sql"


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
        self._open_folder()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._sockets: str | None = None  # of Ray, whose sockets need a short path
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
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        lines = [f"export {name}={shlex.quote(v)}\n" for name, v in self.environment.items()]
        self._private("environment.sh", "".join(lines))
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self.processes)):
            self.stop(name)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

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
        path = self.folder / f"{name}.log"
        path.touch(mode=0o600)
        path.chmod(0o600)
        inherited = {k: v for k, v in os.environ.items() if k not in SECRETS}
        with open(path, "ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder if name != "postgres" else "/",
                env={**inherited, **settings},
                umask=0o077,
                start_new_session=True,
            )

    def _run(self, name: str, command: list[str], settings: Mapping[str, str]) -> None:
        self._commands[name] = (command, dict(settings))
        self.start(name)

    def _open_folder(self) -> None:
        """Make the folder; its mode is set only where it is new, empty, or of an earlier start."""
        above = next(path for path in self.folder.parents if path.exists())
        root, new = os.getuid() == 0, not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        if new or not any(self.folder.iterdir()) or (self.folder / "secrets").exists():
            for path in itertools.takewhile(
                lambda path: path != above, (self.folder, *self.folder.parents)
            ):
                path.chmod(0o711 if root else 0o700)  # PostgreSQL's user passes to its data
            self._private(".gitignore", "*\n")
        if root and "postgres" in self._servers and not _passes(self.folder):
            raise SystemExit(
                f"PostgreSQL does not run as root, and its user {UNPRIVILEGED!r} cannot pass to "
                f"{self.folder}: take a folder where others can pass, such as /srv/cuvee"
            )

    def _made_up(self) -> dict[str, str]:
        file = self.folder / "secrets"
        kept = {}
        if file.exists():
            kept = dict(line.split("=", 1) for line in file.read_text().splitlines())
        values = {
            name: os.environ.get(name, kept.get(name, secrets.token_urlsafe(24)))
            for name in SECRETS
        }
        if values["CUVEE_PREFECT_AUTH"].strip() and ":" not in values["CUVEE_PREFECT_AUTH"]:
            values["CUVEE_PREFECT_AUTH"] = f"cuvee:{values['CUVEE_PREFECT_AUTH']}"
        _check_secrets(values)
        self._private("secrets", "".join(f"{name}={value}\n" for name, value in values.items()))
        return values

    def _private(self, name: str, content: str) -> Path:
        """Write a file of mode 0600, also where one of another mode is there."""
        path, new = self.folder / name, self.folder / f".{name}.new"
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
        return new.replace(path)

    def _password(self, database: str) -> str:
        return self._secrets[f"CUVEE_{ROLES[database].upper()}_DB_PASSWORD"]

    def database(self, name: str, driver: str) -> str:
        """The URL of a database, for SQLAlchemy; holds its password."""
        password = urllib.parse.quote(self._password(name), safe="")
        return self._place(name, driver).replace("@", f":{password}@")

    def _place(self, name: str, driver: str) -> str:
        """The URL of a database without its password, which servers find in PGPASSWORD."""
        return f"postgresql+{driver}://{ROLES[name]}@{HOST}:{self.ports['postgres']}/{name}"

    def _start_postgres(self) -> None:
        programs = postgres_programs()
        if programs is None:
            raise SystemExit("PostgreSQL is not installed; Debian: apt-get install postgresql")
        data, root = self.folder / "postgres", os.getuid() == 0
        as_user = ["runuser", "-u", UNPRIVILEGED, "--"] if root else []
        if not (data / "PG_VERSION").exists():
            data.mkdir(mode=0o700, exist_ok=True)
            words = self._private("database-password", self._secrets["CUVEE_DB_PASSWORD"])
            if root:
                for path in (data, words):
                    shutil.chown(path, UNPRIVILEGED)
            made = [str(programs / "initdb"), "-D", str(data), "-U", "cuvee", "-A", "scram-sha-256"]
            made += ["--pwfile", str(words), "--encoding=UTF8", "--locale=C"]
            subprocess.run([*as_user, *made], check=True, stdout=subprocess.DEVNULL, cwd="/")
            words.unlink()
        port = str(self.ports["postgres"])
        command = [str(programs / "postgres"), "-D", str(data), "-p", port, "-h", HOST, "-k", ""]
        self._run("postgres", [*as_user, *command], {})
        self._until("postgres", lambda: _listens(self.ports["postgres"]))
        _until(lambda: self.make_databases(programs), f"the databases ({data})")

    def make_databases(self, programs: Path) -> bool:
        """Make a role and a database for each server, where they are not; False if it failed."""
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'prefect'"
        words = ("--quiet", "--tuples-only", "--set", "ON_ERROR_STOP=1", "--file", DATABASES)
        done = self.administer(programs / "psql", *words, "--command", owner, "postgres")
        if done.returncode == 0 and done.stdout.split() == ["cuvee"]:
            raise SystemExit(
                f"the databases in {self.folder} are of an earlier version, in which the servers "
                "shared one password: take another folder, or restore a dump (infra/RUNBOOK.md)"
            )
        return done.returncode == 0

    def administer(self, *command: Path | str) -> subprocess.CompletedProcess[str]:
        """Run a program of PostgreSQL, as `infra/kubernetes/backup.sh`, as the superuser."""
        settings = {"PGHOST": HOST, "PGPORT": str(self.ports["postgres"]), "PGUSER": "cuvee"}
        settings |= {"PGPASSWORD": self._secrets["CUVEE_DB_PASSWORD"]}
        settings |= {"CUVEE_STORE": self.environment["CUVEE_STORE"]}
        return subprocess.run(
            [str(word) for word in command],
            check=False, capture_output=True, text=True, cwd="/",
            env={**os.environ, **self._secrets, **settings},
        )  # fmt: skip

    def _start_prefect(self) -> None:
        self._run(
            "prefect",
            [
                *(str(BIN / "prefect"), "server", "start"),
                *("--host", HOST, "--port", str(self.ports["prefect"])),
            ],
            {
                "PREFECT_HOME": str(self.folder / "prefect"),
                "PREFECT_API_DATABASE_CONNECTION_URL": self._place("prefect", "asyncpg"),
                "PGPASSWORD": self._password("prefect"),
                "PREFECT_SERVER_API_AUTH_STRING": self._secrets["CUVEE_PREFECT_AUTH"],
                "PREFECT_API_AUTH_STRING": self._secrets["CUVEE_PREFECT_AUTH"],
                "PREFECT_API_URL": self.environment["PREFECT_API_URL"],
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{self.ports['prefect']}",
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
            f"database_uri = {self._place('mlflow_auth', 'psycopg2')}\n"
            f"admin_password = {self._secrets['CUVEE_MLFLOW_PASSWORD']}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        )
        self._run(
            "mlflow",
            [
                *(str(BIN / "mlflow"), "server", "--app-name", "basic-auth", "--workers", "1"),
                *("--host", HOST, "--port", str(self.ports["mlflow"])),
                *("--backend-store-uri", self._place("mlflow", "psycopg2")),
                *("--artifacts-destination", str(self.folder / "artifacts")),
            ],
            {
                "MLFLOW_AUTH_CONFIG_PATH": str(auth),
                "PGPASSWORD": self._password("mlflow"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": self._secrets["CUVEE_MLFLOW_KEY"],
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
        )

    def _start_ray(self) -> None:
        settings = {name: self.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        settings |= {"RAY_USAGE_STATS_ENABLED": "0"}
        node = ["--num-cpus=1", "--disable-usage-stats", "--block"]
        node += ["--object-store-memory=100000000"]
        # Ray opens its folder to all, so that it needs one around it that is closed.
        self._sockets = tempfile.mkdtemp(prefix="cuvee-ray-", dir="/tmp")
        for k in range(self._nodes):
            where = [f"--address={HOST}:{self.ports['ray']}"]
            if k == 0:
                where = ["--head", f"--port={self.ports['ray']}", f"--temp-dir={self._sockets}/ray"]
                where += ["--include-dashboard=false"]
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

    def wait(self) -> None:
        """Wait until Prefect and MLflow answer."""
        for name, url in (("prefect", "PREFECT_API_URL"), ("mlflow", "MLFLOW_TRACKING_URI")):
            if name not in self.processes:
                continue
            self._until(name, lambda url=url: _answers(f"{self.environment[url]}/health"))


def _check_secrets(values: Mapping[str, str]) -> None:
    """Refuse what is empty, in an auth string also half of it, and one secret of two servers."""
    seen: dict[str, str] = {}
    for name, value in values.items():
        user, _, secret = value.partition(":") if name.endswith("_AUTH") else ("-", "", value)
        if not user.strip() or not secret.strip():
            form = ", or half of it is (it is user:secret)" if name.endswith("_AUTH") else ""
            raise SystemExit(
                f"{name} is empty{form}: unset it, and a secret is made up, or set it to one of "
                "your own (openssl rand -hex 24)"
            )
        if secret in seen:
            raise SystemExit(f"{name} and {seen[secret]} are the same: each server has its own")
        seen[secret] = name


def _passes(folder: Path) -> bool:
    """Whether PostgreSQL's user can pass through a folder, and through all above it."""
    asked = ["runuser", "-u", UNPRIVILEGED, "--", "test", "-x", str(folder)]
    return subprocess.run(asked, check=False, cwd="/").returncode == 0


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
