"""A real Slurm on 127.0.0.1, without systemd or cgroups: munge, a controller and two nodes.

All of its state lies in a temporary folder, and everything that it starts is ended with it.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")
SBIN = "/usr/sbin:/sbin"  # not on everybody's PATH
NODES = ("node1", "node2")  # of one core each
ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}  # of a job; some others pass
WITHIN = 60.0  # seconds for its servers to answer
CONFIGURATION = """\
ClusterName=cuvee-test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
{addresses}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
SlurmdTimeout=10
MailProg=/bin/true
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""  # cred_expire is also how long a job that is queued again waits; Slurm has 120 s
OWN_ADDRESS = "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"  # of the machine's name
LOCAL_NAME = ["unshare", "--uts", "sh", "-c", 'hostname localhost && exec "$@"', "sh"]  # root's


class NoSlurm(Exception):
    """Slurm cannot be started here, and why."""


class SlurmCluster:
    """Slurm's servers, in a context that ends them.

    Attributes:
        environment: what a client sets to use them.
    """

    def __enter__(self) -> "SlurmCluster":
        path = f"{os.environ.get('PATH', '')}:{SBIN}"
        if lacking := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
            raise NoSlurm(f"{', '.join(lacking)} not installed (apt-get install slurm-wlm munge)")
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short, for sockets
        self.folder.chmod(0o755)  # munge's clients pass to its socket
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}
        self.environment["TMPDIR"] = str(self.folder / "t")  # of jobs; Ray's sockets lie there
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._write_configuration()
            self._start_munge()
            self._start("slurmctld", "-D", "-i")
            for node in NODES:
                self.start_node(node)
            self.until(lambda: self.states() == {"idle"}, "two idle nodes")
            words = (f"--nodes={len(NODES)}", "--output=/dev/null", "--wrap", "srun true")
            number = self.submit(*words, cwd=self.folder)
            self.until(lambda: self.job(number) == "COMPLETED", "the end of a first job")
        except BaseException as error:
            logs = [f"{path.name}: {path.read_text()[-600:]}" for path in self.folder.glob("*.log")]
            self.__exit__()
            if not isinstance(error, AssertionError | OSError | subprocess.SubprocessError):
                raise
            raise NoSlurm("; ".join([f"Slurm does not start here: {error}", *logs])) from error
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():  # of jobs; then the servers, which would start others
            with contextlib.suppress(psutil.Error):
                process.kill()
        for name in reversed(list(self._servers)):
            self._end(name)
        for process, _ in self._marked():  # such as those that would tell of the end of a job
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, *words: str, **more: str) -> str:
        """What a program of Slurm says."""
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=60,
            env={**os.environ, **self.environment, **more},
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *words: str, cwd: Path, **more: str) -> str:
        """Give a script to sbatch; the number of the job."""
        return self.call("sbatch", "--parsable", f"--chdir={cwd}", *words, **more)

    def job(self, number: str) -> str:
        """The state of a job, or of all tasks of an array."""
        states = self.call("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", number)
        return "+".join(sorted(set(states.split())))

    def ended(self, number: str, seconds: float = 300.0) -> str:
        """Wait for the end of a job; its state then."""
        self.until(lambda: set(self.job(number).split("+")) <= ENDS, "a job's end", seconds)
        return self.job(number)

    def states(self) -> set[str]:
        """Of the nodes."""
        with contextlib.suppress(AssertionError):
            return set(self.call("sinfo", "--noheader", "--format=%t").split())
        return set()

    def processes(self, node: str = "") -> list[psutil.Process]:
        """What jobs have started, on a node or on all, and is still there."""
        wanted = {"SLURMD_NODENAME": node} if node else {}
        return [
            process
            for process, given in self._marked()
            if "SLURM_JOB_ID" in given and wanted.items() <= given.items()
        ]

    def _marked(self) -> list[tuple[psutil.Process, dict[str, str]]]:
        """All processes of this Slurm and of its jobs, with their environments."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):  # psutil stops at the name that slurmstepd writes
                text = Path(f"/proc/{process.pid}/environ").read_text(errors="replace")
                parts = (word.partition("=") for word in text.split("\0"))
                given = {name: value for name, _, value in parts}
                if given.get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    found.append((process, given))
        return found

    def start_node(self, name: str, *more: str) -> None:
        """Start the server of a node."""
        self._start("slurmd", "-D", "-N", name, *more, called=name)

    def reset_node(self, name: str) -> None:
        """Let a node lose its power and come back: all that ran there is gone, without a word."""
        self._end(name, signal.SIGKILL)
        found = self.processes(name)
        above = [parent for process in found if (parent := process.parent())]
        for process in (*(one for one in above if one.name().startswith("slurmstepd")), *found):
            with contextlib.suppress(psutil.Error):
                process.kill()  # first those that would tell of an end
        self.start_node(name, "-b")

    def until(self, condition: Callable[[], object], what: str, seconds: float = WITHIN) -> None:
        """Wait for something.

        Raises:
            AssertionError: it did not come about.
        """
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {what}"
            time.sleep(0.2)

    def _write_configuration(self) -> None:
        known = subprocess.run([*LOCAL_NAME, "true"], check=False, capture_output=True)
        self._named = LOCAL_NAME if known.returncode == 0 else []  # else all listen everywhere
        for name in ("munge", "state", "spool", "t"):
            (self.folder / name).mkdir(mode=0o755)
        text = CONFIGURATION.format(
            folder=self.folder,
            user=getpass.getuser(),
            controller=_free_port(),
            addresses=OWN_ADDRESS if self._named else "",
        )
        for name in NODES:
            text += f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=1 "
            text += f"Port={_free_port()}\n"
        (self.folder / "slurm.conf").write_text(text)

    def _start_munge(self) -> None:
        place = self.folder / "munge"
        (place / "key").write_bytes(os.urandom(128))
        (place / "key").chmod(0o600)
        files = [f"--{name}-file={place / name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", f"--socket={place / 'socket'}", *files)
        self.until((place / "socket").exists, "munge")

    def _start(self, program: str, *words: str, called: str = "") -> None:
        with (self.folder / f"{called or program}.out.log").open("ab") as log:
            self._servers[called or program] = subprocess.Popen(
                [*self._named, program, *words], cwd="/",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.environment}, start_new_session=True,
            )  # fmt: skip

    def _end(self, name: str, number: int = signal.SIGTERM) -> None:
        server = self._servers.pop(name)
        for one in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, one)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=10)
                break


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
