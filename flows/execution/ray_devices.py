"""What trains packs on a Ray cluster: its kinds of GPUs or of nodes, and what a pack gets of them.

Nodes may differ: some with GPUs or slices of them (MIG), some with cores alone, some with little
memory. A pack goes where there is what it asks for. Assumption: the GPUs of one node are alike.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import ray

from cuvee.proxies.train.batching import PackRequest
from cuvee.proxies.train.device import DeviceKind, this_device
from cuvee.tasks.pack_job import PackJob

NODE = "ray.io/node-id"  # the label by which Ray tells nodes apart
LOOK = 0.01  # of a GPU, which is looked at while packs train on it


def pack_options(job: PackJob) -> dict[str, Any]:
    """What a task that trains a pack is given, in the words of Ray's tasks."""
    asked = job.request or PackRequest(gpus=float(job.device == "cuda"))
    memory = {"memory": asked.memory} if asked.memory else {}
    return {"num_cpus": 1, "num_gpus": asked.gpus, **memory, **_on_nodes(asked.nodes)}


def _on_nodes(nodes: tuple[str, ...]) -> dict[str, Any]:
    return {"label_selector": {NODE: f"in({', '.join(nodes)})"}} if nodes else {}


def node_devices(device: str, wait: Callable[[Any, str], Any]) -> tuple[DeviceKind, ...]:
    """The kinds of GPUs of a cluster, each with its nodes; for "cpu", its nodes.

    Args:
        device: "cpu" or "cuda".
        wait: gives what a task gave, unless it is cancelled.

    Raises:
        ServiceError: a node has GPUs, and torch there cannot use them.
    """
    resources = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    if device == "cpu":
        here = [
            DeviceKind("cpu", int(own.get("memory", 0)), nodes=(name,))
            for name, own in resources.items()
            if own.get("CPU", 0) >= 1
        ]
        return tuple(here) or (DeviceKind("cpu", 0),)  # whose nodes come when they are asked for
    looks = {
        name: ray.remote(this_device)
        .options(num_cpus=0, num_gpus=LOOK, name="look-at-gpu", **_on_nodes((name,)))
        .remote(device)
        for name, own in resources.items()
        if own.get("GPU", 0) > 0
    }
    kinds: dict[DeviceKind, tuple[str, ...]] = {}
    for name, look in looks.items():
        kind = wait(look, f"a look at the GPUs of node {name[:12]}")
        kinds[kind] = (*kinds.get(kind, ()), name)
    return tuple(dataclasses.replace(kind, nodes=own) for kind, own in kinds.items())
