"""One attempt at a run: the process that keeps its program."""

from cuvee.tasks.trainer import supervisor
from cuvee.tasks.trainer.attempt import run_program
from cuvee.tasks.trainer.program import TrainerProgram


def test_a_supervisor_finds_packages_where_its_python_does(tmp_path, monkeypatch):
    """Catches a supervisor that ends in an ImportError where packages are installed for a user or
    on PYTHONPATH, and one that takes a module from the directory of a run."""
    installed, run = tmp_path / "installed", tmp_path / "run"
    installed.mkdir()
    run.mkdir()
    (installed / "sitecustomize.py").write_text(f"open({str(tmp_path / 'found')!r}, 'w')\n")
    (run / "json.py").write_text("raise SystemExit('a module of the run directory')")
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.chdir(run)
    run_program(TrainerProgram(("/bin/true",), "true", "{}"), run / "run.json", print)
    assert (tmp_path / "found").exists()


def test_what_cannot_be_killed_is_given_up(monkeypatch):
    """Catches a worker that waits for ever for a process that hangs in a dead disk."""

    class Hanging:
        pid = -1

        def terminate(self) -> None:
            """Nothing comes of it."""

        kill = terminate

    monkeypatch.setattr(supervisor, "marked_processes", lambda mark: [Hanging()])
    monkeypatch.setattr(supervisor, "GIVE_UP", 0.2)
    assert supervisor.end_marked("/run", 0.0) == 1
