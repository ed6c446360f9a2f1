"""The files of infra/ say what they must, and nothing that is dangerous.

Kubernetes' own kinds are validated by Kubernetes' schemas (kubernetes-validate carries them).
compose.yaml and the RayCluster have no schema on the package index: their structure is checked
here. No container was ever started from them.
"""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
MANIFESTS = sorted(INFRA.glob("kubernetes/*.yaml"))
SECRET = re.compile(r"PASSWORD|TOKEN|AUTH_STRING|SECRET|AUTH$")


def documents() -> list[tuple[str, dict]]:
    return [
        (path.name, document)
        for path in MANIFESTS
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] != "Kustomization"
    ]


def pods() -> list[tuple[str, dict]]:
    found = []
    for name, document in documents():
        spec = document.get("spec", {})
        if document["kind"] == "RayCluster":
            groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
            found += [(name, group["template"]["spec"]) for group in groups]
        elif "template" in spec:
            found.append((name, spec["template"]["spec"]))
    return found


def compose() -> dict:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


@pytest.mark.parametrize("name, document", documents())
def test_manifests_are_what_kubernetes_takes(name, document):
    """Catches a misspelt field, which Kubernetes would drop, and one in the wrong place."""
    validate = pytest.importorskip("kubernetes_validate")
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
            validate.validate(pod | {"spec": group["template"]["spec"]}, "1.33", strict=True)
    else:
        validate.validate(document, "1.33", strict=True)


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
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if SECRET.search(variable["name"]):
                    assert "secretKeyRef" in variable.get("valueFrom", {}), (name, variable)
    for name, service in compose()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and variable != "POSTGRES_INITDB_ARGS":
                assert str(value).startswith("${"), (name, variable)
    example = (INFRA / "environment.example").read_text()
    for line in example.splitlines():
        if SECRET.search(line.split("=")[0]) and not line.startswith("#"):
            assert line.split("=", 1)[1] in ("", "cuvee:"), line


def test_ports_are_published_on_loopback_unless_told_otherwise():
    """Catches a database or a server that listens on every address of the host."""
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("${CUVEE_BIND:-127.0.0.1}:"), (name, port)
    assert not any(d.get("spec", {}).get("type") for _, d in documents() if d["kind"] == "Service")
    assert any(d["kind"] == "NetworkPolicy" for _, d in documents())


def test_compose_is_whole():
    """Catches a service that waits for one that does not exist, and a volume nobody declares."""
    content = compose()
    services = content["services"]
    assert {"postgres", "prefect", "worker", "mlflow", "ray-head", "ray-worker"} == set(services)
    for name, service in services.items():
        assert "image" in service, name
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"} and "healthcheck" in services[other]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (INFRA / source).exists() if source.startswith(".") else True
            assert there and (source.startswith(".") or source in content["volumes"]), volume


def test_ray_and_mlflow_ask_who_comes():
    """Catches a topology in which anyone on the network can run code or change a record."""
    services = compose()["services"]
    for name in ("ray-head", "ray-worker", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
    for _, pod in pods():
        for container in pod["containers"]:
            names = {v["name"]: v.get("value") for v in container.get("env", [])}
            if "RAY_AUTH_TOKEN" in names or container["name"].startswith("ray"):
                assert names["RAY_AUTH_MODE"] == "token"
    assert "--app-name basic-auth" in (INFRA / "mlflow.sh").read_text()


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
