"""The files of infra/ say what they must, and nothing that is dangerous.

Kubernetes' own kinds are validated by Kubernetes' schemas (kubernetes-validate carries them).
compose.yaml and the RayCluster have no schema on the package index: their structure is checked
here. Rules hold for every workload there is, so that a new one must keep them. The commands that
check secrets are run; no container was ever started.
"""

import ast
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import strangers
import yaml
from docker.utils.build import exclude_paths

ROOT = Path(__file__).parent.parent.parent
INFRA = ROOT / "infra"
SPEC = importlib.util.spec_from_file_location("local_topology", INFRA / "local.py")
local = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(local)
MANIFESTS = sorted(INFRA.glob("kubernetes/*.yaml"))
SECRET = re.compile(r"PASSWORD|TOKEN|AUTH_STRING|SECRET|AUTH$")


def documents() -> list[tuple[str, dict]]:
    return [
        (path.name, document)
        for path in MANIFESTS
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] != "Kustomization"
    ]


def templates(found: object) -> list[dict]:
    """Every pod template in a manifest of whatever kind: what has containers is one."""
    if isinstance(found, list):
        return [pod for value in found for pod in templates(value)]
    if not isinstance(found, dict):
        return []
    own = [found] if "containers" in found.get("spec", {}) else []
    return own + [pod for value in found.values() for pod in templates(value)]


def pods() -> list[tuple[str, dict]]:
    return [(name, pod["spec"]) for name, document in documents() for pod in templates(document)]


def parts(pod: dict) -> list[dict]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def containers() -> list:
    return [
        pytest.param(pod, container, id=container["name"])
        for _, pod in pods()
        for container in parts(pod)
    ]


def services() -> list:
    return [pytest.param(name, service, id=name) for name, service in compose()["services"].items()]


def compose() -> dict:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


@pytest.mark.parametrize("name, document", documents())
def test_manifests_are_what_kubernetes_takes(name, document):
    """Catches a misspelt field, which Kubernetes would drop, and one in the wrong place."""
    if document["kind"] == "RayCluster":
        assert document["apiVersion"] == "ray.io/v1"
        spec = document["spec"]
        assert set(spec) == {
            "rayVersion",
            "enableInTreeAutoscaling",
            "headGroupSpec",
            "workerGroupSpecs",
        }
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            assert all(isinstance(v, str) for v in group["rayStartParams"].values())
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}}
            kubernetes_validate.validate(
                pod | {"spec": group["template"]["spec"]}, "1.33", strict=True
            )
    else:
        kubernetes_validate.validate(document, "1.33", strict=True)


def test_the_cluster_runs_the_ray_that_is_pinned():
    """Catches a driver and a cluster of different versions, which Ray refuses to join."""
    pinned = re.search(r"(?m)^ray==(.+)$", (INFRA / "constraints.txt").read_text()).group(1)
    (ray,) = [d for _, d in documents() if d["kind"] == "RayCluster"]
    assert ray["spec"]["rayVersion"] == pinned
    prefect = re.search(r"(?m)^prefect==(.+)$", (INFRA / "constraints.txt").read_text()).group(1)
    assert yaml.safe_load((INFRA / "prefect.yaml").read_text())["prefect-version"] == prefect


def test_everything_that_is_listed_is_there_and_nothing_else():
    """Catches a manifest that is written and never applied."""
    listed = yaml.safe_load((INFRA / "kubernetes/kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml"} == {path.name for path in MANIFESTS}


def test_secrets_come_from_the_environment():
    """Catches a password that is written into a file of the repository."""
    for name, pod in pods():
        for container in parts(pod):
            for variable in container.get("env", []):
                if SECRET.search(variable["name"]):
                    assert "secretKeyRef" in variable.get("valueFrom", {}), (name, variable)
    for name, service in compose()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and variable != "POSTGRES_INITDB_ARGS":
                assert str(value).startswith("${"), (name, variable)
    example = (INFRA / "environment.example").read_text()
    given = dict(line.split("=", 1) for line in example.splitlines() if re.match(r"[A-Z]", line))
    wanted = set(re.findall(r"\$\{(\w+):\?", (INFRA / "compose.yaml").read_text()))
    assert wanted == {name for name, value in given.items() if not value}
    assert set(local.SECRETS) == wanted


def test_ports_are_published_on_loopback_unless_told_otherwise():
    """Catches a database or a server that listens on every address of the host."""
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("${CUVEE_BIND:-127.0.0.1}:"), (name, port)
    assert not any(d.get("spec", {}).get("type") for _, d in documents() if d["kind"] == "Service")


def test_compose_is_whole():
    """Catches a service that waits for one that does not exist, and a volume nobody declares."""
    content = compose()
    services = content["services"]
    assert {"postgres", "prefect", "worker", "mlflow", "ray-head", "ray-worker"} < set(services)
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert (
                how == {"condition": "service_healthy"} and "test" in services[other]["healthcheck"]
            ), name
        assert set(service["networks"]) <= set(content["networks"])
        for volume in service.get("volumes", []):
            source = volume.rsplit(":", 2 if volume.endswith(":ro") else 1)[0]
            there = (INFRA / source).exists() or source.startswith("${CUVEE_BACKUPS")
            assert there if source[0] in ".$" else source in content["volumes"], volume


@pytest.mark.parametrize("name, service", services())
def test_a_service_is_bounded(name, service):
    """Catches a service that runs as root, may write its image, or takes the host's memory."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["mem_limit"] and service["pids_limit"]
    assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
    assert not {"privileged", "network_mode", "pid", "cap_add"} & set(service)
    assert ("database" in service["networks"]) == (
        name in {"postgres", "prefect", "mlflow", "backup"}
    )
    job = "profiles" in service
    assert service["restart"] == ("no" if job else "unless-stopped")
    assert service["healthcheck"].get("disable", False) == job
    if not job:
        assert service["healthcheck"]["test"][0] == "CMD"


def test_only_servers_that_need_postgresql_share_its_network():
    """Catches a database that every container, and the internet, can be reached from."""
    assert compose()["networks"]["database"] == {"internal": True}


def test_ray_and_mlflow_ask_who_comes():
    """Catches a topology in which anyone on the network can run code or change a record."""
    services = compose()["services"]
    for name in ("ray-head", "ray-worker", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
    for _, pod in pods():
        for container in parts(pod):
            names = {v["name"]: v.get("value") for v in container.get("env", [])}
            if "RAY_AUTH_TOKEN" in names or container["name"].startswith("ray"):
                assert names["RAY_AUTH_MODE"] == "token"
    assert "--app-name basic-auth" in (INFRA / "mlflow.sh").read_text()


@pytest.mark.parametrize("pod, container", containers())
def test_a_container_is_bounded(pod, container):
    """Catches a workload that runs as root, may gain rights or write its image, or takes a node."""
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert min(context["runAsUser"], context["runAsGroup"], context["fsGroup"]) > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for kind in ("requests", "limits"):
        assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][kind]), kind
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for volume in volumes.values():
        allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"}
        assert set(volume) - {"name"} <= allowed, volume
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), volume
    assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("pod, container", containers())
def test_a_container_is_probed(pod, container):
    """Catches a server that hangs unseen, or takes requests before it can answer them."""
    if pod.get("restartPolicy") == "Never" or container in pod.get("initContainers", []):
        # of a job, which ends by itself or at its deadline
        assert not any(name.endswith("Probe") for name in container)
        return
    ports = {port["containerPort"] for port in container["ports"]}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[kind]
        (how,) = {"httpGet", "grpc", "exec"} & set(probe)
        assert how == "exec" or probe[how]["port"] in ports, kind
        assert probe["timeoutSeconds"] >= 5  # Kubernetes' one second ends what is only busy


def test_jobs_end():
    """Catches a backup that hangs for ever, and two that run at once."""
    jobs = [document["spec"] for _, document in documents() if document["kind"] == "CronJob"]
    assert jobs
    for job in jobs:
        assert job["concurrencyPolicy"] == "Forbid"
        assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 0


def test_a_backup_without_its_store_fails(tmp_path):
    """Catches a typo or an unmounted claim that is "saved", and found when the last good one is
    gone; programs that do nothing stand in for PostgreSQL's, and 1970 for long ago."""
    for name in ("pg_dump", "pg_restore"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)

    def save(store: object) -> tuple[int, list[str]]:
        paths = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        (place / "2001-01-01T000000Z").mkdir(parents=True)
        os.utime(place / "2001-01-01T000000Z", (1, 1))
        done = subprocess.run(
            ["sh", str(INFRA / "kubernetes/backup.sh"), "save", str(place)],
            env={**os.environ, "PATH": paths, "CUVEE_STORE": str(store)},
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0 or f"no store in {store}" in done.stderr
        assert (place / "2001-01-01T000000Z").exists() == bool(done.returncode)
        return done.returncode, [path.name for path in place.glob("*Z/*.tar")]

    assert save(tmp_path / "store") == (2, [])
    (tmp_path / "store").mkdir()
    assert save(tmp_path / "store") == (0, ["store.tar"])
    assert save("s3://bucket/store") == (0, [])


def test_the_namespace_admits_restricted_pods_alone():
    """Catches a namespace in which the next workload may be root again."""
    (space,) = [d for _, d in documents() if d["kind"] == "Namespace"]
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_images_are_exact_versions_named_in_one_place():
    """Catches `latest`, a bare major version, and a version that was raised in one file of four."""
    lines = (INFRA / "images.txt").read_text().splitlines()
    images = {line for line in lines if line and not line.startswith("#")}
    for image in images:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", image), image
    dockerfile = (INFRA / "Dockerfile").read_text()
    used = {re.search(r"(?m)^ARG BASE=(.+)$", dockerfile).group(1)}
    used |= {container["image"] for _, pod in pods() for container in parts(pod)}
    for service in compose()["services"].values():
        used.add(re.sub(r"^\$\{\w+:-(.+)\}$", r"\1", service["image"]))
    assert used == images
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"cuvee:{project['version']}" in images
    for image in yaml.safe_load((INFRA / "kubernetes/kustomization.yaml").read_text())["images"]:
        assert f"{image['name']}:{image['newTag']}" in images


def test_the_image_is_built_of_what_is_pinned():
    """Catches a package of whatever version is newest on the day of the build."""
    dockerfile = (INFRA / "Dockerfile").read_text()
    assert "PIP_CONSTRAINT=/opt/cuvee/infra/constraints.txt" in dockerfile
    assert re.search(r"(?m)^USER [1-9]\d*:[1-9]\d*$", dockerfile)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        re.sub("[-_.]+", "-", line.split("==")[0]).lower()
        for line in (INFRA / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for wanted in [*extras["dependencies"], *extras["optional-dependencies"]["team"]]:
        assert re.match(r"[\w-]+", wanted).group().replace("_", "-").lower() in pinned, wanted


def selects(selector: dict, labels: dict) -> bool:
    equal = selector.get("matchLabels", {}).items() <= labels.items()
    return equal and all(
        labels.get(rule["key"]) in rule["values"] and rule["operator"] == "In"
        for rule in selector.get("matchExpressions", [])
    )


def opened(policies: list[dict], labels: dict, other: dict, *, way: str) -> set:
    """Ports between two pods that a pod's policies open; "*" is every port."""
    chosen = [p["spec"] for p in policies if selects(p["spec"]["podSelector"], labels)]
    mine = [p for p in chosen if {"from": "Ingress", "to": "Egress"}[way] in p["policyTypes"]]
    assert mine, f"nothing is refused to {labels}"
    rules = [r for p in mine for r in p.get({"from": "ingress", "to": "egress"}[way], [])]
    found = set()
    for rule in rules:
        peers = [peer for peer in rule[way] if "namespaceSelector" not in peer]
        if any(selects(peer["podSelector"], other) for peer in peers):
            found |= {port["port"] for port in rule.get("ports", [{"port": "*"}])}
    return found


def test_pods_reach_whom_they_need_and_nobody_else():
    """Catches a database that any pod reaches, a way that is missing, and an open way out."""
    policies = [d for _, d in documents() if d["kind"] == "NetworkPolicy"]
    apps = [t["metadata"]["labels"] for _, document in documents() for t in templates(document)]
    names = {labels["app"] for labels in apps}
    ways = {
        (a["app"], b["app"], port)
        for a in apps
        for b in apps
        for port in opened(policies, a, b, way="to") & opened(policies, b, a, way="from")
    }
    wanted = {(name, "postgres", 5432) for name in ("prefect", "mlflow", "backup")}
    wanted |= {("worker", "prefect", 4200), ("worker", "mlflow", 5000)}
    wanted |= {(a, b, "*") for a in ("ray", "worker") for b in ("ray", "worker")}
    assert ways == wanted and names == {name for way in wanted for name in way[:2]}
    outside = [
        (policy["metadata"]["name"], peer, port["port"])
        for policy in policies
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        for port in rule.get("ports", [{"port": "*"}])
        if "podSelector" not in peer or "namespaceSelector" in peer
    ]
    assert {(name, port) for name, _, port in outside} == {("names", 53)}


def commands() -> list:
    """What checks secrets and starts a server, of every container: its words and variables."""
    found = []
    for _, pod in pods():
        for container in pod["containers"]:
            words = [*container.get("command", []), *container.get("args", [])]
            for first in pod.get("initContainers", []):  # KubeRay's own command comes after these
                words = first["command"]
                assert first["env"] == container["env"]
            variables = {v["name"] for v in container.get("env", [])}
            if container["image"].startswith("cuvee"):
                found.append(pytest.param(words, variables, id=f"pod-{container['name']}"))
    for name, service in compose()["services"].items():
        words = [*service.get("entrypoint", []), *service.get("command", [])]
        if "cuvee" in service["image"]:
            found.append(pytest.param(words, set(service["environment"]), id=f"service-{name}"))
    return found


def started(words: list[str], folder: Path, variables: dict[str, str]) -> str:
    """Run a container's command, with a program that only says how it was called as the server."""
    for name in ("mlflow", "prefect", "ray"):
        program = folder / name
        program.write_text(
            '#!/bin/sh\necho "STARTED $0 $*"; cat "${MLFLOW_AUTH_CONFIG_PATH:-/dev/null}"\n'
        )
        program.chmod(0o755)
    words = [word.replace("/opt/cuvee", str(ROOT)) for word in words]
    settings = {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder)}
    done = subprocess.run(
        words, env=settings | variables, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, 2), done.stderr
    assert "STARTED" not in done.stdout or done.returncode == 0
    return done.stdout if done.returncode == 0 else f"refused: {done.stderr}"


def form(name: str, secret: str) -> str:
    return f"cuvee:{secret}" if name.endswith("AUTH_STRING") else secret


@pytest.mark.parametrize("words, variables", commands())
def test_a_server_does_not_start_without_its_secrets(words, variables, tmp_path):
    """Catches an empty password, or an auth string with half of it empty, that lets anyone in.

    And one secret of two servers. Compose's own `:?` takes `cuvee:` for a secret.
    """
    names = sorted(name for name in variables if SECRET.search(name))
    names += ["MLFLOW_FLASK_SERVER_SECRET_KEY"] * ("MLFLOW_FLASK_SERVER_SECRET_KEY" in variables)
    assert names
    given = {name: form(name, f"secret-of-{name}") for name in names}
    assert not started(words, tmp_path, given).startswith("refused")
    for name in names:
        wrong = [{name: ""}, {name: " \n"}]
        if name.endswith("AUTH_STRING"):
            wrong += [{name: "cuvee:"}, {name: ":secret"}, {name: "secret"}, {name: "cuvee: "}]
        wrong += [{name: form(name, f"secret-of-{other}")} for other in names if other != name]
        for case in wrong:
            said = started(words, tmp_path, given | case)
            assert said.startswith("refused: cuvee: ") and "secret" in said, (case, said)
        without = {other: value for other, value in given.items() if other != name}
        assert started(words, tmp_path, without).startswith("refused")


@pytest.mark.parametrize("words, variables", commands())
def test_no_secret_is_an_argument(words, variables, tmp_path):
    """Catches a password in `ps`, which every user of a machine reads."""
    given = {name: f"user:secret-{name}" for name in variables if SECRET.search(name)}
    said = started(words, tmp_path, given).splitlines()
    assert not any("secret-" in line for line in said if line.startswith("STARTED")), said


def test_mlflows_settings_are_for_its_user_alone(tmp_path):
    """Catches a file of passwords that keeps the mode of one that was there before."""
    kept = tmp_path / "mlflow-auth.ini"
    kept.write_text("older")
    kept.chmod(0o644)
    names = ("CUVEE_DB_PASSWORD", "CUVEE_MLFLOW_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
    given = {name: f"secret-{name}" for name in names}
    said = started(["sh", "/opt/cuvee/infra/mlflow.sh"], tmp_path, given)
    assert "admin_password = secret-CUVEE_MLFLOW_PASSWORD" in said
    assert "secret-CUVEE_DB_PASSWORD" not in said
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_secrets_get_neither_into_the_image_nor_into_the_repository(tmp_path):
    """Catches `COPY infra` beside infra/.env, and `git add -A`."""
    planted = [".env", "infra/.env", "recipes/.env", "flows/.env.local", "infra/team.env"]
    planted += ["tasks/deep/er/.env", "recipes/secrets", "infra/environment.sh", ".git/config"]
    sources = re.findall(r"(?m)^COPY (.+) \S+$", (INFRA / "Dockerfile").read_text())
    sources = [source for line in sources for source in line.split()]
    for name in [*planted, *(f"{s}/x" if (ROOT / s).is_dir() else s for s in sources)]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    sent = exclude_paths(str(tmp_path), [rule for rule in rules if rule and rule[0] != "#"])
    assert not set(planted) & set(sent)
    assert set(sources) <= set(sent), "the image lacks something"
    assert "infra" not in sources and "." not in sources
    for name in (name for name in planted if name.split("/")[-1].endswith((".env", ".local"))):
        ask = ["git", "check-ignore", "--quiet", "--no-index", name]
        assert subprocess.run(ask, check=False, cwd=ROOT).returncode == 0, name


@pytest.fixture
def bare(monkeypatch):
    for name in local.SECRETS:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", local.SECRETS)
def test_local_servers_do_not_start_without_their_secrets(name, bare, tmp_path):
    """Catches an auth string whose secret is empty, and one password of two servers."""
    team = local.Topology(tmp_path / "made-up", servers=())
    made = dict(line.split("=", 1) for line in (team.folder / "secrets").read_text().splitlines())
    assert len({value.split(":")[-1] for value in made.values()}) == len(local.SECRETS)
    other = next(value for key, value in made.items() if key != name and ":" not in value)
    wrong = ["", " ", other] + ["cuvee:", ":secret", "cuvee: "] * name.endswith("_AUTH")
    for k, value in enumerate(wrong):
        for key, secret in (made | {name: value}).items():
            bare.setenv(key, secret)
        with pytest.raises(SystemExit, match=name if value != other else "the same"):
            local.Topology(tmp_path / str(k), servers=())
        assert not (tmp_path / str(k) / "secrets").exists()


def test_local_servers_keep_what_they_write_to_their_user(bare, tmp_path):
    """Catches files that keep a mode that others read, and folders of others that are opened."""
    above, folder = tmp_path / "above", tmp_path / "above/team"
    folder.mkdir(parents=True)
    above.chmod(0o700)
    for name in ("secrets", "environment.sh", "mlflow-auth.ini"):
        (folder / name).touch(mode=0o644)
    with local.Topology(folder, servers=()) as team:
        team._private("mlflow-auth.ini", "")
    for name in ("secrets", "environment.sh", "mlflow-auth.ini"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(above.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.stat().st_mode) & 0o066 == 0
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o750)
    (theirs / "letter").touch()
    local.Topology(theirs, servers=())
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o750
    assert not (theirs / ".gitignore").exists()


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("runuser"), reason="needs root")
def test_local_servers_open_no_folder_for_postgresql(bare, tmp_path):
    """Catches a start by root that lets everybody pass through /root, for good."""
    user = subprocess.run(["id", local.UNPRIVILEGED], check=False, capture_output=True)
    if user.returncode != 0:
        strangers.missing("PostgreSQL")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with pytest.raises(SystemExit, match="cannot pass"):
        local.Topology(home / "team", servers=("postgres",))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_nothing_unpickles_or_executes_what_came_over_the_network():
    """Catches pickle, eval, unsafe YAML, and torch.load of more than weights."""
    refused = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system"}
    refused |= {"pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads"}
    refused |= {"joblib.load", "marshal.loads", "dill.loads", "pd.read_pickle"}
    for room in ("flows", "tasks", "proxies", "evaluation", "mixtures", "infra"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
                where = f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
                assert name not in refused, where
                given = {keyword.arg: keyword.value for keyword in call.keywords}
                if name == "torch.load":
                    assert ast.unparse(given["weights_only"]) == "True", where
                if name.endswith(("subprocess.run", "subprocess.Popen")):
                    assert "shell" not in given, where
                if name == "np.load":
                    assert ast.unparse(given.get("allow_pickle", ast.Constant(False))) == "False"


def test_flows_and_tasks_keep_no_pickled_results():
    """Catches Prefect's default of pickling what a task returns, where a result is persisted."""
    for room in ("flows", "tasks"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
                given = {k.arg: ast.unparse(k.value) for k in call.keywords}
                assert given.get("persist_result", "False") == "False", (path, name)
                assert "result_serializer" not in given


PAGES = """
import sys
from pathlib import Path
import prefect
from fastapi.testclient import TestClient
from prefect.server.api.server import create_ui_app
from prefect.settings import PREFECT_UI_STATIC_DIRECTORY, temporary_settings

file = Path(sys.argv[1]) / "file"  # nobody makes a folder below a file, not even root
file.write_text("")
closed = file / "pages"  # right below the file Prefect would wait 90 s for a lock
prefect.__ui_static_subpath__ = closed / "v1"
prefect.__ui_v2_static_subpath__ = closed / "v2"

def asked():
    found = TestClient(create_ui_app(ephemeral=False)).get("/", headers={"Accept": "text/html"})
    return found.status_code, "<title>Prefect" in found.text

print(*asked())
with temporary_settings(restore_defaults={PREFECT_UI_STATIC_DIRECTORY}):
    print(*asked())
"""


def test_prefects_pages_are_served_where_its_package_cannot_be_written(tmp_path):
    """Catches a team's server that answers 404 to everybody who opens it: for user 1000 on a
    read-only root Prefect cannot copy its pages to where it does by default."""
    name = "PREFECT_SERVER_UI_STATIC_DIRECTORY"
    (server,) = (part for _, pod in pods() for part in parts(pod) if part["name"] == "prefect")
    values = [variable["value"] for variable in server["env"] if variable["name"] == name]
    assert [compose()["services"]["prefect"]["environment"][name]] == values
    assert values[0].startswith("/tmp/")  # the folder of each that can be written
    found = subprocess.run(
        [sys.executable, "-c", PAGES, str(tmp_path)],
        env={**os.environ, name: values[0].replace("/tmp", str(tmp_path), 1)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines()[-2:] == ["200 True", "404 False"]
