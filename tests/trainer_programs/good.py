"""A trainer that follows the contract: a bigram model, counted on the mixture; numpy alone.

What else it does is asked for in `settings`, so that tests have one program to read:

    crash    end with code 3 after so many steps, once
    kill     end itself by SIGKILL after so many steps, once
    wait     seconds to sleep in each step
    never    go on for ever after the last step
    children start two that sleep so many seconds in sessions of their own, one without environment
    say      a variable whose value is printed
    result   changes of result.json: "nan", "foreign", "lacking", "none", "half", "empty model"
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

run = json.loads(Path(sys.argv[-1]).read_text())
settings, places = run["settings"], {k: Path(v) for k, v in run["write"].items()}
STEPS = settings.get("steps", 5)


def ids(split):
    return np.fromfile(split["path"], dtype=run["token_type"], count=split["tokens"])


def drawn(step):
    """The step's tokens: each domain's share of them, in the order of its file."""
    found, begin = [], run["tokens"] * step // STEPS
    count = run["tokens"] * (step + 1) // STEPS - begin
    ends = np.cumsum([stage["tokens"] for stage in run["stages"]])
    stage = run["stages"][int(np.searchsorted(ends, begin, side="right"))]
    for name, share in stage["shares"].items():
        every = ids(run["domains"][name]["train"])
        wanted = round(share * count)
        start = (run["data_seed"] * 1009 + step * wanted) % len(every)
        found.append(np.take(every, np.arange(start, start + wanted), mode="wrap"))
    return found


def bits_per_byte(counts, split):
    """Of held-out text, document by document: value, standard error, documents."""
    every, index = ids(split), np.load(split["index"])
    ends = [int(end) for end in index["offsets"][1:] if end <= len(every)]
    bits, sizes = [], index["bytes"][: len(ends)]
    for begin, end in zip([0, *ends[:-1]], ends, strict=False):
        before, after = every[begin : end - 1], every[begin + 1 : end]
        chance = (counts[before, after] + 0.1) / (counts[before].sum(1) + 0.1 * run["vocabulary"])
        bits.append(-np.log2(chance).sum())
    bits, sizes = np.array(bits), np.asarray(sizes, dtype=float)
    value = bits.sum() / sizes.sum()
    spread = np.sqrt(((bits - value * sizes) ** 2).sum()) / sizes.sum()
    return {"value": float(value), "stderr": float(spread), "n": len(sizes)}


def once(name):
    """Whether this is asked for the first time in the directory of the run."""
    try:
        (places["state"].parent / f"{name}.done").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def write(path, values):
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(values))
    draft.replace(path)


def train():
    state = Path(run["resume_from"]) / "counts.npz"
    begin, counts = 0, np.zeros((run["vocabulary"], run["vocabulary"]))
    if state.exists():
        kept = np.load(state)
        begin, counts = int(kept["step"]), kept["counts"]
    print(f"begins at step {begin} with rank {os.environ['CUVEE_NODE_RANK']}", flush=True)
    if "say" in settings:
        print(f"the secret is {os.environ[settings['say']]}", flush=True)
    if settings.get("children"):
        words = ["sleep", str(settings["children"])]
        subprocess.Popen(words, start_new_session=True, env={"PATH": os.environ["PATH"]})
        subprocess.Popen(words, start_new_session=True)
    for step in range(begin, STEPS):
        for part in drawn(step):
            np.add.at(counts, (part[:-1], part[1:]), 1)
        time.sleep(settings.get("wait", 0))
        draft = state.with_name("draft.npz")
        np.savez(draft, step=step + 1, counts=counts)
        draft.replace(state)  # both at once, whenever it is killed
        with places["progress"].open("a") as file:
            line = {"tokens": run["tokens"] * (step + 1) // STEPS, "loss": 5.0 / (step + 1)}
            file.write(json.dumps(line) + "\n")
        if settings.get("crash") == step + 1 and once("crash"):
            print("a device fell off the bus", flush=True)
            sys.exit(3)
        if settings.get("kill") == step + 1 and once("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
    return counts


def main():
    counts = train()
    if os.environ["CUVEE_NODE_RANK"] != "0":
        return
    scores = {
        f"domain/{name}": bits_per_byte(counts, domain["valid"])
        for name, domain in run["domains"].items()
    }
    result, change = {"fingerprint": run["fingerprint"], "scores": scores}, settings.get("result")
    first = next(iter(scores))
    if change == "nan":
        scores[first]["value"] = math.nan
    if change == "foreign":
        result["fingerprint"] = "0" * 64
    if change == "lacking":
        del scores[first]
    if change == "empty model":
        (places["state"].parent / "model").mkdir(exist_ok=True)
        result = {"fingerprint": run["fingerprint"], "checkpoint": "model"}
    if change == "half":
        places["result"].write_text(json.dumps(result)[:-20])
    elif change != "none":
        write(places["result"], result)
    while settings.get("never"):
        time.sleep(1)


main()
