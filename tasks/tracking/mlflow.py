"""Studies in MLflow: the one module that imports MLflow, and what opens a tracker for a study.

A study is a parent run, a proxy a child of it. Without `MLFLOW_TRACKING_URI` everything is kept in
an SQLite file and a folder beside it, so that no server has to run. Only the flow's own process
comes here; workers report to it.
"""

import getpass
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import CuveeError, ServiceError, StorageError
from cuvee.tasks.extras import require
from cuvee.tasks.tracking import views
from cuvee.tasks.tracking.fields import RunFields
from cuvee.tasks.tracking.study_tracker import RECOMMENDATION, StudyTracker
from cuvee.tasks.tracking.tracker import (
    RUNNING,
    FaultTolerantTracker,
    RegisteredVersion,
    TrackedRun,
)

EXPERIMENT = "cuvee"
DATABASE, ARTIFACTS = "mlflow.db", "artifacts"
PARENT, NAME, NOTE = "mlflow.parentRunId", "mlflow.runName", "mlflow.note.content"
METRICS, LABELS = 1000, 100  # most metrics, params and tags that MLflow takes in one batch
DIGEST = 16  # characters of a digest that are shown; MLflow takes 36, the source has all
PAGE = 1000  # runs asked for at once
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default waits minutes for a server that is gone
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # else two lines for every proxy
}


def local_uri(folder: Path) -> str:
    """The tracking URI of the SQLite record in a folder."""
    return f"sqlite:///{Path(folder).resolve() / DATABASE}"


def open_tracker(folder: Path, warn: Callable[[str], None]) -> FaultTolerantTracker:
    """The tracker of a study: the server of `MLFLOW_TRACKING_URI`, else SQLite in `folder`.

    Args:
        folder: of the embedded record; not used with a server.
        warn: is given one sentence when the record fails; the study goes on.
    """
    return FaultTolerantTracker(StudyTracker(open_backend(folder)), warn)


def open_backend(folder: Path) -> "MlflowBackend":
    """The server of `MLFLOW_TRACKING_URI`, else SQLite in a folder."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri:
        return MlflowBackend(uri)
    files = (Path(folder).resolve() / ARTIFACTS).as_uri()
    return MlflowBackend(local_uri(folder), artifacts=files)


class MlflowBackend:
    """Runs and registered recommendations in MLflow.

    Args:
        uri: of a tracking server, or `sqlite:///<file>`.
        experiment: its name; it is made if it is missing.
        artifacts: URI of the folder for the files of a new experiment; a server has its own.
    """

    def __init__(
        self, uri: str, experiment: str = EXPERIMENT, artifacts: str | None = None
    ) -> None:
        self._uri, self._experiment, self._artifacts = uri, experiment, artifacts
        self._connection: tuple[Any, str] | None = None

    def find_runs(self, tags: Mapping[str, str], parent: str | None = None) -> Sequence[TrackedRun]:
        wanted = {**tags, **({PARENT: parent} if parent else {})}
        clauses = [f"tags.`{name}` = '{value}'" for name, value in wanted.items()]
        with self._service() as (client, experiment):
            runs, token = [], None
            while token != "":
                page = client.search_runs(
                    [experiment],
                    filter_string=" and ".join(clauses),
                    order_by=["attributes.start_time DESC"],
                    max_results=PAGE,
                    page_token=token,
                )
                runs += page
                token = page.token or ""
        return [
            TrackedRun(
                r.info.run_id,
                dict(r.data.tags),
                r.info.status,
                frozenset(r.data.metrics),
                r.data.tags.get(NOTE, ""),
            )
            for r in runs
        ]

    def create_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        ours = {NAME: name, "mlflow.source.name": "cuvee", "mlflow.source.type": "LOCAL"}
        ours["mlflow.user"] = _user()
        if parent:
            ours[PARENT] = parent
        with self._service() as (client, experiment):
            run = client.create_run(experiment, run_name=name, tags={**tags, **ours})
            return str(run.info.run_id)

    def log(self, run: str, fields: RunFields) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        now = int(time.time() * 1000)
        about = {NOTE: fields.description} if fields.description else {}
        metrics = [Metric(p.name, p.value, now, p.step) for p in fields.metrics]
        params = [Param(name, value) for name, value in fields.params.items()]
        tags = [RunTag(name, value) for name, value in {**fields.tags, **about}.items()]
        batches = zip_longest(
            _batches(metrics, METRICS - 2 * LABELS),
            _batches(params, LABELS),
            _batches(tags, LABELS),
            fillvalue=(),
        )
        inputs = [
            DatasetInput(
                Dataset(
                    name=item.name,
                    digest=item.digest[:DIGEST],
                    source_type="cuvee",
                    source=json.dumps({"identity": item.digest}),
                    profile=json.dumps(dict(item.profile)),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
            for item in fields.datasets
        ]
        with self._service() as (client, _):
            for some_metrics, some_params, some_tags in batches:
                client.log_batch(run, some_metrics, some_params, some_tags)
            if inputs:
                client.log_inputs(run, datasets=inputs)

    def logged_steps(self, run: str, metric: str) -> frozenset[int]:
        with self._service() as (client, _):
            return frozenset(point.step for point in client.get_metric_history(run, metric))

    def set_status(self, run: str, status: str) -> None:
        with self._service() as (client, _):
            if status == RUNNING:
                client.update_run(run, status=status)
            else:
                client.set_terminated(run, status=status)

    def delete_run(self, run: str) -> None:
        with self._service() as (client, _):
            client.delete_run(run)

    def log_files(self, run: str, files: Sequence[Path], folder: str = "") -> None:
        with self._service() as (client, _):
            for file in files:
                client.log_artifact(run, str(file), folder or None)

    def register_version(self, name: str, run: str, tags: Mapping[str, str], text: str) -> None:
        from mlflow.exceptions import MlflowException

        with self._service() as (client, _):
            try:
                client.create_registered_model(name, {"cuvee.kind": "recommendation"})
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"runs:/{run}/{RECOMMENDATION}"
            client.create_model_version(name, source, run, dict(tags), description=text)

    def versions(self, name: str) -> Sequence[RegisteredVersion]:
        with self._service() as (client, _):
            found = client.search_model_versions(f"name='{name}'", max_results=PAGE)
            if not found:
                return ()
            aliases: dict[str, set[str]] = {}
            for alias, number in client.get_registered_model(name).aliases.items():
                aliases.setdefault(str(number), set()).add(alias)
        newest = sorted(found, key=lambda version: -int(version.version))
        return [
            RegisteredVersion(
                str(v.version), dict(v.tags), frozenset(aliases.get(str(v.version), ()))
            )
            for v in newest
        ]

    def tag_version(
        self, name: str, number: str, tags: Mapping[str, str], alias: str | None = None
    ) -> None:
        with self._service() as (client, _):
            for tag, value in tags.items():
                client.set_model_version_tag(name, number, tag, value)
            if alias:
                client.set_registered_model_alias(name, alias, number)

    def delete_alias(self, name: str, alias: str) -> None:
        with self._service() as (client, _):
            client.delete_registered_model_alias(name, alias)

    @contextmanager
    def _service(self) -> Iterator[tuple[Any, str]]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection
        except CuveeError:
            raise
        except Exception as error:  # MLflow lets errors of its database and of HTTP through
            reason = " ".join(str(error).split())[:300]
            raise ServiceError(
                f"MLflow at {self._uri} does not answer as it should ({reason}); check that the "
                "server runs or that the folder can be written, or unset MLFLOW_TRACKING_URI "
                "to keep the record in a local file"
            ) from error

    def _connect(self) -> tuple[Any, str]:
        # Imported here, not at the top: it takes 2 to 3 s, which `cuvee plan` need not pay, and it
        # reads its settings from the environment while it is imported.
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        require("the record", "record")
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        if self._uri.startswith("sqlite:///"):
            folder = Path(self._uri.removeprefix("sqlite:///")).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    f"cannot make the folder of the record {folder}: {error.strerror or error}; "
                    "choose a folder that can be written"
                ) from error
        client = MlflowClient(tracking_uri=self._uri)
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            tags = views.missing_tags({}, int(time.time() * 1000))
            made = client.create_experiment(self._experiment, self._artifacts, tags)
            return client, str(made)
        if found.lifecycle_stage != "active":
            raise ServiceError(
                f"MLflow's experiment {self._experiment!r} at {self._uri} was deleted; restore it "
                f"with `mlflow experiments restore -x {found.experiment_id}`"
            )
        self._arrange(client, found)
        return client, str(found.experiment_id)

    def _arrange(self, client: Any, experiment: Any) -> None:
        """Give an experiment of an earlier version the tags that arrange its pages."""
        from mlflow.exceptions import MlflowException

        for name, value in views.missing_tags(experiment.tags, int(time.time() * 1000)).items():
            try:
                client.set_experiment_tag(experiment.experiment_id, name, value)
            except MlflowException:  # a server may let its users write runs alone
                return


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "unknown"


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
