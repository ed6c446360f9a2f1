"""Runs a trainer of others on a Ray cluster: where it fits, with its resources, on several nodes.

A run on one node is one task of Ray. One on several is a placement group, a bundle on each node, in
which the trainer is started with its rank and the address where its processes can meet.
"""

import socket
from collections.abc import Callable
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cuvee.flows.execution.ray_pool import POLL_SECONDS, task_result
from cuvee.mixtures.errors import ServiceError
from cuvee.mixtures.runs.run_results import Outcome
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.train_by_program import attempt_run, begin_run, train_by_program
from cuvee.tasks.trainer.attempt import NodePlace
from cuvee.tasks.trainer.program import TrainerProgram

TINY = 1e-9


def program_places(program: TrainerProgram) -> int:
    """Runs of a trainer that the cluster can train at once, by what its nodes have.

    Raises:
        ServiceError: no node has what a run asks for; says what they have.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {k: v for k, v in _resources(program).items() if v}
    on_each = [
        int(min(node.get(kind, 0.0) / amount + TINY for kind, amount in wanted.items()))
        for node in nodes
    ]
    fit = [count for count in on_each if count]
    if len(fit) < program.nodes:
        asked = ", ".join(f"{amount:g} {kind}" for kind, amount in wanted.items())
        most = ", ".join(
            f"{max((node.get(kind, 0.0) for node in nodes), default=0):g} {kind}" for kind in wanted
        )
        many = f"{program.nodes} nodes with {asked} each" if program.nodes > 1 else asked
        raise ServiceError(
            f"a run of {program.name} asks for {many} (proxy.trainer), and this Ray cluster has "
            f"{len(fit) or 'no'} such node{'s' * (len(fit) > 1)} (the most on one: {most}): ask "
            "for less, or add nodes"
        )
    return max(1, sum(fit) // program.nodes)


def _resources(program: TrainerProgram) -> dict[str, float]:
    """What a run gets on each node, in Ray's words."""
    return {"CPU": program.cpus, "GPU": program.gpus, "memory": float(program.memory)}


def program_options(program: TrainerProgram) -> dict[str, Any]:
    """What a task that runs a trainer is given on its node, in the words of Ray's tasks."""
    memory = {"memory": program.memory} if program.memory else {}
    return {"num_cpus": program.cpus, "num_gpus": program.gpus, **memory}


def train_in_worker(job: PackJob, queue: Any) -> tuple[Outcome, ...]:
    """Train a run on one node; what a task of Ray does."""
    return train_by_program(job, lambda progress: queue.report.remote(job.name, progress))


def _meet_in_worker(job: PackJob) -> tuple[tuple[Outcome, ...], str, int]:
    """The outcome of a run that has ended; or where its nodes can meet, at the first of them."""
    with socket.socket() as asked:
        asked.bind(("", 0))
        port = asked.getsockname()[1]
    return begin_run(job), ray.util.get_node_ip_address(), port


def _attempt_in_worker(job: PackJob, queue: Any, node: NodePlace) -> tuple[Outcome, ...]:
    def report(progress: Any) -> None:
        queue.report.remote(job.name, progress)

    return attempt_run(job, report, node=node)


def train_on_nodes(
    job: PackJob, program: TrainerProgram, queue: Any, check: Callable[[], None]
) -> tuple[Outcome, ...]:
    """Train a run on several nodes together.

    Args:
        job: of one run.
        program: its trainer.
        queue: takes its progress.
        check: raises where the run was told to stop.

    Raises:
        TrainingError: the trainer failed on one of them; it is ended on all.
    """
    bundle = {kind: amount for kind, amount in _resources(program).items() if amount}
    group = placement_group([bundle] * program.nodes, strategy="STRICT_SPREAD")
    under_way: list[Any] = []

    def submit(rank: int, work: Callable[..., Any], *args: Any) -> Any:
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
        options = {**program_options(program), "max_retries": 0, "scheduling_strategy": where}
        under_way.append(ray.remote(work).options(name=f"run-{job.name}", **options).remote(*args))
        return under_way[-1]

    def wait(count: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < count:
            check()
            done, _ = ray.wait(under_way, timeout=POLL_SECONDS)
            for one in done:
                under_way.remove(one)
                found.append((one, task_result(one, f"run {job.name}")))
        return found

    try:
        under_way.append(group.ready())
        wait(1)
        submit(0, _meet_in_worker, job)
        ((_, (outcomes, address, port)),) = wait(1)
        if outcomes:
            return tuple(outcomes)
        nodes = [NodePlace(k, address, port) for k in range(program.nodes)]
        first, *_ = [submit(one.rank, _attempt_in_worker, job, queue, one) for one in nodes]
        return next(tuple(gave) for one, gave in wait(program.nodes) if one == first)
    finally:
        for one in under_way:
            ray.cancel(one, force=True)
        remove_placement_group(group)
