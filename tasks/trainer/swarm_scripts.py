"""The scripts by which people train a swarm: one run, all of them in a loop, or an array of Slurm.

Nothing here runs them. What a recipe says stands in them in quotation marks, never as code.
"""

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from cuvee.tasks.trainer.program import PLACES, VARIABLE, TrainerProgram, identity_files

SCRIPTS = ONE, ALL, ARRAY, LIST = "run_one.sh", "run_all.sh", "array.slurm", "runs.txt"
SPARE_MINUTES = 2  # of a job of Slurm beyond the limit of an attempt
PLACE = re.compile(rf"\{{({'|'.join(PLACES)})\}}")

ONE_HEAD = """\
#!/usr/bin/env bash
# Trains one run of this swarm, unless it has been trained: bash run_one.sh runs/DIGITS
# Cuvée wrote this file and does not run it: whoever calls it decides what is run.
set -uo pipefail
cpus={cpus} gpus={gpus} nodes={nodes} retries={retries}
limit={limit} # seconds of an attempt; 0 for none
"""
ONE_NODE = """
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P) || exit 2
name=$(basename -- "${1:?which run? bash run_one.sh runs/DIGITS}")
folder=$here/runs/$name run=$here/runs/$name/run.json rank=0
if [ ! -f "$run" ]; then echo "$run is not there: no run of this swarm" >&2; exit 2; fi

if [ "${2-}" = node ]; then # on each node of a run
    if [ "$nodes" -gt 1 ]; then rank=$SLURM_PROCID; fi
    node_rank=$rank log=trainer.log
    if [ "$rank" != 0 ]; then log=trainer-$rank.log; fi
    export CUVEE_RUN_JSON="$run" CUVEE_NODE_RANK="$node_rank" OMP_NUM_THREADS="$cpus"
    cd -- "$folder" || exit 2
    exec </dev/null >>"$log" 2>&1
    : "$gpus" "$master_address" "$master_port"
"""
ONE_BODY = """\
    exec "$@"
fi

whole_result() {
    grep -qsF "$name" "$folder/result.json" &&
        [ "$(tr -d '[:space:]' <"$folder/result.json" | tail -c 1)" = '}' ]
}
note_spent() { # what attempts took so far, and whether the trainer ended well
    local before
    before=$(sed -n 's/^{"seconds": *\\([0-9]*\\).*/\\1/p' "$folder/spent.json" 2>/dev/null)
    printf '{"seconds": %d, "ended": %s}\\n' "$((10#${before:-0} + SECONDS))" "$1" \\
        >"$folder/.spent" && mv -f -- "$folder/.spent" "$folder/spent.json"
}
end_trainer() {
    kill -TERM -- "-$pid"
    for ((i = 0; i < 100; i++)); do
        kill -0 "$pid" || break
        sleep 0.2
    done
    kill -KILL -- "-$pid"
} 2>/dev/null
end_leftovers() { # of this node: what a trainer has started in groups of their own
    local one
    for one in $(grep -lszxF "CUVEE_RUN_JSON=$run" /proc/[0-9]*/environ); do
        one=${one#/proc/}
        kill -KILL "${one%/environ}" 2>/dev/null
    done
}

exec 9>>"$folder.lock" # held by the trainer too: two never train one run at once
if command -v flock >/dev/null && ! flock -n 9; then
    echo "$name: another process trains it; this one waits"
    flock 9
fi
if whole_result; then
    echo "$name: has been trained"
    exit 0
elif [ ! -e "$folder/result.json" ] && grep -qs '"ended": *true' "$folder/spent.json"; then
    echo "$name: has ended well without a result.json; remove its spent.json to begin it again"
    exit 0
fi
master_address=127.0.0.1 master_port=$((20000 + ${SLURM_JOB_ID:-$$} % 20000))
launch=(bash "$here/run_one.sh" "$name" node)
if [ "$nodes" -gt 1 ]; then
    if [ -z "${SLURM_JOB_NODELIST-}" ]; then
        echo "each run takes $nodes nodes, which array.slurm has and a loop has not" >&2
        exit 2
    fi
    master_address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    launch=(srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1
        --cpus-per-task="$cpus" --kill-on-bad-exit=1 "${launch[@]}")
fi
export master_address master_port

stopped=''
trap 'stopped=143' TERM HUP
trap 'stopped=130' INT
for ((attempt = 0; attempt <= retries; attempt++)); do
    SECONDS=0 late='' pause=0.1
    echo "--- attempt of $(date '+%Y-%m-%d %H:%M:%S %z')" >>"$folder/trainer.log"
    set -m # the trainer leads a group, which can be ended whole
    "${launch[@]}" &
    pid=$!
    set +m
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$limit" -gt 0 ] && [ "$SECONDS" -ge "$limit" ]; then late=1; fi
        if [ -n "$stopped$late" ]; then end_trainer; fi
        sleep "$pause"
        pause=0.5
    done
    wait "$pid"
    code=$?
    end_leftovers
    if whole_result; then
        note_spent true
        echo "$name: trained"
        exit 0
    fi
    sleep 0.3 # a trainer that is told to stop may end well, sooner than this script is told
    if [ -n "$stopped" ]; then
        note_spent false
        echo "$name: stopped; the same command goes on" >&2
        exit "$stopped"
    fi
    if [ "$code" = 0 ] && [ -z "$late" ] && [ ! -e "$folder/result.json" ]; then
        note_spent true
        echo "$name: trained, and left no result.json: cuvee collect reads what there is"
        exit 0
    fi
    note_spent false
    why="the trainer ended with code $code"
    if [ "$code" = 0 ]; then why='its result.json is not whole, or of another run'; fi
    if [ -n "$late" ]; then why="the trainer took longer than $limit seconds"; fi
    echo "$name: $why (attempt $((attempt + 1)) of $((retries + 1)))" >&2
done
echo "$name: failed; the end of $folder/trainer.log:" >&2
tail -n 12 -- "$folder/trainer.log" >&2
exit 1
"""
FOLLOWED = """\
follow() { # wait for run_one.sh, which a signal does not end at once
    local pid=$!
    wait "$pid"
    code=$?
    while kill -0 "$pid" 2>/dev/null; do
        wait "$pid"
        code=$?
    done
}
"""
ALL_BODY = """
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P) || exit 2
stopped='' failed=''
stop() {
    stopped=$1
    kill -TERM "$!" 2>/dev/null
}
trap 'stop 143' TERM HUP
trap 'stop 130' INT
for run in "${runs[@]}"; do
    bash "$here/run_one.sh" "$run" &
    follow
    if [ -n "$stopped" ]; then exit "$stopped"; fi
    if [ "$code" = 2 ]; then exit 2; fi # no run can be begun
    if [ "$code" != 0 ]; then failed="$failed $run"; fi
done
if [ -n "$failed" ]; then
    echo "Failed, each with its trainer.log, and begun again by the same command:$failed" >&2
    exit 1
fi
echo "All ${#runs[@]} runs are trained: cuvee collect reads them"
"""
ARRAY_BODY = """
again=''
stop() { kill -TERM "$!" 2>/dev/null; }
trap stop TERM
trap 'again=1; stop' USR1
bash "$swarm/run_one.sh" "${runs[$SLURM_ARRAY_TASK_ID]}" &
follow
if [ -n "$again" ] && [ "$code" != 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$retries" ]; then
    scontrol requeue "$SLURM_JOB_ID" # its time is over: it goes on from state/ in another job
fi
exit "$code"
"""


def launch_scripts(
    program: TrainerProgram, folder: Path, runs: Sequence[str], *, name: str
) -> dict[str, str]:
    """The scripts of a swarm: file name -> content.

    Args:
        program: the trainer; the values of its environment stand there as the recipe has them.
        folder: of the swarm, where it will be run.
        runs: the folders of its runs within that.
        name: of the study.
    """
    listed = "\n".join(["runs=(", *(f"    {shlex.quote(run)}" for run in runs), ")\n"])
    return {
        ONE: _run_one(program),
        ALL: "#!/usr/bin/env bash\n"
        "# Trains the runs of this swarm one after the other; called again, it goes on.\n"
        f"set -u\n{listed}{FOLLOWED}{ALL_BODY}",
        ARRAY: f"#!/usr/bin/env bash\n{_directives(program, len(runs), name)}"
        "# Trains the runs of this swarm: sbatch array.slurm. The jobs keep this list of runs,\n"
        "# whatever is exported later. Options of sbatch go before those above.\n"
        f"set -u\nswarm={shlex.quote(str(folder))} retries={program.retries}\n"
        f"{listed}{FOLLOWED}{ARRAY_BODY}",
        LIST: "".join(f"{run}\n" for run in runs),
    }


def _run_one(program: TrainerProgram) -> str:
    limit = math.ceil(program.timeout) if math.isfinite(program.timeout) else 0
    head = ONE_HEAD.format(
        cpus=max(1, math.floor(program.cpus)),
        gpus=math.ceil(program.gpus),
        nodes=program.nodes,
        retries=program.retries,
        limit=limit,
    )
    words = program.words(Path("{run}"), {name: f"{{{name}}}" for name in PLACES})
    begin = [f"    set -- {' '.join(map(_word, words))}\n"]
    known = [VARIABLE.fullmatch(value) for value in program.environment.values()]
    for (name, value), taken in zip(program.environment.items(), known, strict=True):
        text = f'"${taken[1]}"' if taken else shlex.quote(value)
        begin.append(f"    export {name}={text}\n")
    asked = [f': "${{{one[1]}?proxy.trainer.environment takes it}}"\n' for one in known if one]
    return "".join([head, *asked, _unchanged(program), ONE_NODE, *begin, ONE_BODY])


def _word(word: str) -> str:
    """A word of the command, in which places are variables of the script."""
    parts = PLACE.split(word)  # text and the names of places in turn
    return "".join(f'"${p}"' if i % 2 else shlex.quote(p) for i, p in enumerate(parts)
                   if p or len(parts) == 1)  # fmt: skip


def _unchanged(program: TrainerProgram) -> str:
    """Lines that see whether the trainer's files are those that fingerprints stand for."""
    if program.version:
        return ""
    checks = [
        f"same {shlex.quote(str(path))} {first} {digest}\n"
        for path, first, digest in identity_files(program.command)
    ]
    return f"""
same() {{ # a trainer that was edited is another one, whose runs have other fingerprints
    command -v sha256sum >/dev/null || return 0
    if [ "$(tail -n "+$2" -- "$1" | sha256sum)" != "$3  -" ]; then
        echo "$1 is not the file that this swarm was exported for: export it again" >&2
        exit 2
    fi
}}
{"".join(checks)}"""


def _directives(program: TrainerProgram, count: int, name: str) -> str:
    """What Slurm is asked for."""
    asked = {
        "job-name": re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:64],
        "array": f"0-{count - 1}",
        "nodes": program.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": math.ceil(program.cpus),
        "gpus-per-node": math.ceil(program.gpus) or None,
        "mem": f"{math.ceil(program.memory / (1 << 20))}M" if program.memory else None,
        "time": math.ceil(program.timeout / 60) + SPARE_MINUTES
        if math.isfinite(program.timeout) else None,
        "signal": "B:USR1@60",
        "open-mode": "append",
    }  # fmt: skip
    lines = [f"#SBATCH --{key}={value}\n" for key, value in asked.items() if value is not None]
    return "".join([*lines, "#SBATCH --requeue\n"])
