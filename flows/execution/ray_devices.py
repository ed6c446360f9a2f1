"""What trains packs on a Ray cluster: its kinds of GPUs or of nodes, and what a pack gets of them.

Nodes may differ: some with GPUs or slices of them (MIG), some with cores alone, some with little
memory. A pack goes where there is what it asks for. Assumption: the GPUs of one node are alike.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray

from cuvee.flows.execution.ray_pool import POLL_SECONDS, task_result
from cuvee.mixtures.errors import ServiceError
from cuvee.proxies.train.batching import PackRequest
from cuvee.proxies.train.device import DeviceKind, this_device
from cuvee.tasks.pack_job import PackJob

NODE = "ray.io/node-id"  # the label by which Ray tells nodes apart
GROUP = "ray.io/node-group"  # a label of nodes whose number others decide, such as an autoscaler
ANY_MEMORY = 1 << 60  # bytes of a node that may be added
LOOK = 0.01  # of a GPU, which is looked at while packs train on it
LOOK_SECONDS = 30.0  # after the first answer, until GPUs that are all taken are looked at no longer


def pack_options(job: PackJob) -> dict[str, Any]:
    """What a task that trains a pack is given, in the words of Ray's tasks."""
    asked = job.request or PackRequest(gpus=float(job.device == "cuda"))
    memory = {"memory": asked.memory} if asked.memory else {}
    return {"num_cpus": 1, "num_gpus": asked.gpus, **memory, **_on_nodes(asked.nodes)}


def _on_nodes(nodes: tuple[str, ...]) -> dict[str, Any]:
    # without a space: Ray keeps it as a part of the second identity, and then aborts this process
    return {"label_selector": {NODE: f"in({','.join(nodes)})"}} if nodes else {}


def living_nodes() -> dict[str, dict[str, Any]]:
    """The nodes of the cluster that are there, by identity."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def node_devices(device: str, check: Callable[[], None]) -> tuple[DeviceKind, ...]:
    """The kinds of GPUs of a cluster, each with its nodes; for "cpu", its nodes.

    Args:
        device: "cpu" or "cuda".
        check: raises where the work was told to stop.

    Raises:
        ServiceError: a node has GPUs, and torch there cannot use them; or none is left.
    """
    nodes = living_nodes()
    if device == "cpu":
        here = [
            DeviceKind("cpu", int(node["Resources"].get("memory", 0)), nodes=(name,))
            for name, node in nodes.items()
            if node["Resources"].get("CPU", 0) >= 1
        ]
        if here and any(GROUP in node.get("Labels", {}) for node in nodes.values()):
            here.append(DeviceKind("cpu", ANY_MEMORY))
        return tuple(here) or (DeviceKind("cpu", 0),)  # whose nodes come when they are asked for
    looks = {
        ray.remote(this_device)
        .options(num_cpus=0, num_gpus=LOOK, name="look-at-gpu", **_on_nodes((name,)))
        .remote(device): name
        for name, node in nodes.items()
        if node["Resources"].get("GPU", 0) > 0
    }
    kinds: dict[DeviceKind, tuple[str, ...]] = {}
    try:
        for name, kind in _seen(looks, check):
            kinds[kind] = (*kinds.get(kind, ()), name)
    finally:
        for look in looks:
            ray.cancel(look, force=True)
    if not kinds:
        raise ServiceError("the nodes with GPUs have left the Ray cluster: run again")
    return tuple(dataclasses.replace(kind, nodes=own) for kind, own in kinds.items())


def _seen(looks: dict[Any, str], check: Callable[[], None]) -> Iterator[tuple[str, DeviceKind]]:
    """What looks at nodes gave, which leave `looks`; those that are busy or gone are left in it."""
    end = math.inf
    while time.monotonic() < end and any(name in living_nodes() for name in looks.values()):
        check()
        done, _ = ray.wait([*looks], timeout=POLL_SECONDS)
        for look in done:
            name = looks.pop(look)
            yield name, task_result(look, f"a look at the GPUs of node {name[:12]}")
            end = min(end, time.monotonic() + LOOK_SECONDS)
