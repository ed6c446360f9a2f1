"""The page on the trainer contract: what its files hold, and what becomes of them."""

import json

from field_tables import field_table

from cuvee.tasks.trainer.contract import PROGRESS, RESULT, RUN, contract_schema

HEAD = """\
# The trainer contract

Any program can train the runs of a study: it reads one file and writes one. `proxy.trainer` of
[the recipe](recipe.md#trainer) names the program, and [the guide](../how-to/own-trainer.md) shows
one at work. Each run has a directory of its own, `trainings/FINGERPRINT` in the home or in
`proxy.trainer.folder`:

| file | who writes it | what it is |
| --- | --- | --- |
| `run.json` | Cuvée, before each attempt | what to train, on what, and where to write |
| `result.json` | the trainer, as its last act | scores by target |
| `checkpoint/` | the trainer, if it likes | the model in the format of Hugging Face |
| `progress.jsonl` | the trainer, now and then | a line of tokens and loss: bars, curves, MLflow |
| `state/` | the trainer | what it needs to go on; removed once the result is stored |
| `trainer.log` | Cuvée | what the trainer printed; `trainer-1.log` of the second node, and so on |

## What a trainer does

1. It is started with the path of `run.json` as its last argument (or where `{run}` stands in the
   command), in the run directory, without a shell. The path is in `CUVEE_RUN_JSON`, too.
2. It loads what lies in `resume_from`, if anything does: an earlier attempt was cut off.
3. It trains on each stage's shares of tokens. Ids of a domain lie in one file, documents one after
   the other, each ended by `end_of_text`:
   `numpy.fromfile(path, dtype=token_type, count=tokens)`. Text is
   `tokenizers.Tokenizer.from_file(tokenizer).decode(ids)`.
4. It writes `result.json` beside its place, renames it, and ends with code 0. Every other code is
   a failure: the run is begun again, `retries` times at most, from what `state/` holds.

The whole of a trainer, but for the training:

```python
import json
import os
import sys
from pathlib import Path

import numpy as np


def main(path):
    run = json.loads(Path(path).read_text())
    texts = {
        name: np.fromfile(d["train"]["path"], run["token_type"], d["train"]["tokens"])
        for name, d in run["domains"].items()
    }
    ...  # train on run["stages"], and tell of it:
    with open(run["write"]["progress"], "a") as file:
        file.write(json.dumps({"tokens": run["tokens"], "loss": 3.2}) + "\\n")
    scores = {name: {"value": 1.1, "stderr": 0.01, "n": 50} for name in run["targets"]}
    result = {"fingerprint": run["fingerprint"], "scores": scores}
    draft = run["write"]["result"] + ".draft"
    Path(draft).write_text(json.dumps(result))
    os.replace(draft, run["write"]["result"])


if __name__ == "__main__":
    main(sys.argv[-1])
```

## What is refused

A result is never used, and named with its file, that belongs to another run (`fingerprint`), lacks
a target, is not finite, is no JSON, has a key twice, or is another one than was read before. Its
run directory is moved to `….refused-1`, and the next `cuvee run` trains the run anew. A loss that
diverged is no result: end with a code other than 0.

What tells a trainer from another is part of each fingerprint: its name, its version or else what
the files in its command hold, the command without folders, and `settings`. Runs of another trainer
are other runs, and never evidence together.

What a trainer starts ends with it, in time, on Ctrl-C, and when the worker or `cuvee` is killed: by
SIGTERM, and four seconds later by SIGKILL.
"""


def contract_page() -> str:
    """The contract, in Markdown."""
    lines, schemas = [HEAD], contract_schema()
    for name in (RUN, RESULT, PROGRESS):
        schema = schemas[name]
        lines += [f"## {name}", ""]
        lines += field_table(schema["properties"], schema.get("required", []), name)
        for part, inner in schema.get("$defs", {}).items():
            lines += [f"### {part.removeprefix('Contract')} {{#{part.lower()}}}", ""]
            lines += [inner["description"], ""]
            lines += field_table(inner["properties"], inner.get("required", []), part)
    lines += ["## JSON schemas", ""]
    for name, schema in schemas.items():
        lines += [f"### {name} as a schema", "", "```json", json.dumps(schema), "```", ""]
    return "\n".join(lines)
