"""What the tests of contracts share: small noisy worlds and their runs, parts made cheap."""

import dataclasses
import functools
import json

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.constraints import Group, constrain
from cuvee.mixtures.controllers import ControllerEvidence
from cuvee.mixtures.loop import search
from cuvee.mixtures.registry import build

WORLD = worlds.Noisy(world=worlds.Additive(size=4, count=2), sd=0.005)
PROBLEM = worlds.world_problem(WORLD)
DOMAINS = PROBLEM.domains
CONSTRAINTS = {
    "free": constrain(DOMAINS, full_tokens=1),
    "caps": constrain(DOMAINS, full_tokens=10_000_000, epochs=3.0),
    "tight": constrain(DOMAINS, full_tokens=10_000_000, epochs=1.1),
    "group": constrain(DOMAINS, full_tokens=1, groups=[Group(("a0", "a1"), at_least=0.6)]),
    "sparse": constrain(DOMAINS, full_tokens=1, most_domains=3),
    "ball": constrain(DOMAINS, full_tokens=1, most_kl=0.3),
}

SLOW = ("anneal", "bayes", "ladder")  # methods of many fits, here of a law that takes no time


def quick(law):
    """A law of many trees with fewer of them: the contract is the same, and the test is fast."""
    fields = {f.name for f in dataclasses.fields(law)}
    cheap = {"trees": 100, "rate": 0.07, "folds": 2}
    return dataclasses.replace(law, **cheap) if set(cheap) <= fields else law


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.dirichlet(np.full(4, 0.7), size=n)
    return W, WORLD.truth(W, W) + 0.005 * rng.standard_normal((n, 2))


@functools.cache
def searched(name):
    """The answer of a registered method, made cheap, on the world, and its history; made once."""
    return search(small(name), PROBLEM, WORLD, 7)


@functools.cache
def standard(name):
    """A registered law, made quick and fitted to the runs of `data()`, once for all tests."""
    return fitted(quick(build("law", name)), *data())


def fitted(law, W, Y, seed=0):
    return law.fit(W, Y, np.full(Y.shape[1], 0.005), np.random.default_rng(seed))


def small(name):
    """A registered method, made cheap: few runs, refits and trees."""
    method = build("method", name)
    fields = {f.name for f in dataclasses.fields(method)}
    cheap = {"runs": 16, "folds": 3, "refits": 10, "batch": 4, "rounds": 1, "ensemble": 6}
    if "laws" not in fields:  # rounds of a method that moves weights are what it is made of
        cheap = {"seeds": 2, "trials": 2}
    method = dataclasses.replace(method, **{k: v for k, v in cheap.items() if k in fields})
    if "laws" in fields:
        laws = ("log_linear",) if name in SLOW else tuple(map(quick, method.laws))
        method = dataclasses.replace(method, laws=laws)
    return method


SKILLS = ("red", "green", "blue", "black")
STEPS = 60
SIZES = {  # of losses, nats per token: usual, nothing to lose, a run that is about to diverge
    "usual": (1.0, 2.0),
    "zero": (0.0, 0.0),
    "huge": (1e300, 1e308),
    "one huge": (0.0, 1e308),
}


def evidence(controller, state, domains, size="usual", seed=0):
    """Evidence as a trainer gives it at the step where a state wants it; a function of names."""
    rng = np.random.default_rng([seed, state["due"]])
    values = dict(zip(SKILLS, np.linspace(*SIZES[size], 4) * rng.uniform(0.9, 1.0, 4), strict=True))
    targets = controller.targets(domains)
    counts = tuple(0 if name == "blue" and state["due"] % 2 else 3 for name in domains)
    seen = tuple(values[name] if n else None for name, n in zip(domains, counts, strict=True))
    examples = [[-x * min(values[n], 1e300) for n in domains] for x in (0.5, 1.0, 2.0)]
    return ControllerEvidence(
        step=state["due"],
        counts=counts,
        losses=seen,
        excess=seen if controller.compares else (),
        held_out=tuple(values[name.removeprefix("domain/")] for name in targets),
        products=tuple(
            tuple(
                float(min(values[a], 1e150) * min(values[b.removeprefix("domain/")], 1e150))
                for b in targets
            )
            for a in domains
        )
        if controller.gradients
        else (),
        norms=tuple(values[name] for name in domains) if controller.gradients else (),
        rate=0.01,
        likelihoods=tuple(map(tuple, examples)) if controller.mixes else (),
        lengths=(1, 1, 1) if controller.mixes else (),
    )


def moved(controller, domains=SKILLS, size="usual", state=None, until=STEPS, hop=False):
    """States of a run from its start, or from one of its states."""
    shares = dict(zip(SKILLS, (0.1, 0.2, 0.3, 0.4), strict=True))
    start = tuple(shares[name] for name in domains)
    states = [state or controller.start(domains, start, STEPS)]
    while states[-1]["due"] < until:
        if hop:  # what a checkpoint does to a state
            states[-1] = json.loads(json.dumps(states[-1]))
        found = evidence(controller, states[-1], domains, size)
        states.append(controller.update(states[-1], found))
        assert states[-1]["due"] > found.step, "an update that is due again at once never ends"
    return states
