"""The scripts by which people train a swarm: one run, all of them in a loop, or an array of Slurm.

Nothing here runs them. What a recipe says stands in them in quotation marks, never as code. Their
own variables begin with `_`: what the caller exports under another name reaches the trainer.
"""

import hashlib
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from cuvee.tasks.trainer.program import PLACES, VARIABLE, TrainerProgram, identity_files

SCRIPTS = ONE, ALL, ARRAY, LIST = "run_one.sh", "run_all.sh", "array.slurm", "runs.txt"
TRAINER_ID = "trainer.id"  # in a run directory: the trainer of its run
SPARE_MINUTES = 2  # of a job of Slurm beyond the limit of an attempt
PLACE = re.compile(rf"\{{({'|'.join(PLACES)})\}}")

ONE_HEAD = """\
#!/usr/bin/env bash
# Trains one run of this swarm, unless it has been trained: bash run_one.sh runs/DIGITS
# Cuvée wrote this file and does not run it: whoever calls it decides what is run.
set -uo pipefail
_cpus={cpus} _gpus={gpus} _nodes={nodes} _retries={retries}
_limit={limit} # seconds of an attempt; 0 for none
_trainer={trainer}
"""
ONE_NODE = """
_here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P) || exit 2
_name=$(basename -- "${1:?which run? bash run_one.sh runs/DIGITS}")
_folder=$_here/runs/$_name _node_rank=0
_run=$_folder/run.json
if [ ! -f "$_run" ]; then echo "$_run is not there: no run of this swarm" >&2; exit 2; fi
if [ "$(cat -- "$_folder/trainer.id" 2>/dev/null)" != "$_trainer" ]; then
    echo "$_name is a run of another trainer, or version, than run_one.sh starts now: its study" \
        "exports it again, into a folder of its own" >&2
    exit 2
fi

if [ "${2-}" = node ]; then # on each node of a run
    if [ "$_nodes" -gt 1 ]; then _node_rank=$SLURM_PROCID; fi
    _log=trainer.log
    if [ "$_node_rank" != 0 ]; then _log=trainer-$_node_rank.log; fi
"""
ONE_BODY = """\
    cd -- "$_folder" || exit 2
    exec </dev/null >>"$_log" 2>&1
    : "$_gpus" "$_master_address" "$_master_port"
    exec "$@"
fi

whole_result() {
    grep -qsF "$_name" "$_folder/result.json" &&
        [ "$(tr -d '[:space:]' <"$_folder/result.json" | tail -c 1)" = '}' ]
}
note_spent() { # what attempts took so far, and whether the trainer ended well
    local _before
    _before=$(sed -n 's/^{"seconds": *\\([0-9]*\\).*/\\1/p' "$_folder/spent.json" 2>/dev/null)
    printf '{"seconds": %d, "ended": %s}\\n' "$((10#${_before:-0} + SECONDS))" "$1" \\
        >"$_folder/.spent" && mv -f -- "$_folder/.spent" "$_folder/spent.json"
}
end_trainer() {
    kill -TERM -- "-$_pid"
    for ((_i = 0; _i < 100; _i++)); do
        kill -0 "$_pid" || break
        sleep 0.2
    done
    kill -KILL -- "-$_pid"
} 2>/dev/null
end_leftovers() { # of this node: what a trainer has started in groups of their own
    local _one
    for _one in $(grep -lszxF "CUVEE_RUN_JSON=$_run" /proc/[0-9]*/environ); do
        _one=${_one#/proc/}
        kill -KILL "${_one%/environ}" 2>/dev/null
    done
}

exec 9>>"$_folder.lock" # held by the trainer too: two never train one run at once
flock -n 9
_held=$?
if [ "$_held" = 1 ]; then
    echo "$_name: another process holds $_folder.lock and trains it; this one waits"
    flock 9
    _held=$?
fi
if [ "$_held" != 0 ]; then
    echo "$_folder.lock cannot be locked (flock ended with code $_held), and without that two" \
        "jobs could train one run: flock is of util-linux, Lustre needs its mount option flock," \
        "and NFS its lock service" >&2
    exit 2
fi
if whole_result; then
    echo "$_name: has been trained (to train it again remove its result.json, its spent.json and" \
        "what is in its state/)"
    exit 0
elif [ ! -e "$_folder/result.json" ] && grep -qs '"ended": *true' "$_folder/spent.json"; then
    echo "$_name: has ended well without a result.json; remove its spent.json to begin it again"
    exit 0
fi
_master_address=127.0.0.1 _master_port=$((20000 + (${SLURM_JOB_ID:-0} + $$) % 12000))
_launch=(bash "$_here/run_one.sh" "$_name" node)
if [ "$_nodes" -gt 1 ]; then
    if [ -z "${SLURM_JOB_NODELIST-}" ]; then
        echo "each run takes $_nodes nodes, which array.slurm has and a loop has not" >&2
        exit 2
    fi
    _master_address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    _launch=(srun --export=ALL --nodes="$_nodes" --ntasks="$_nodes" --ntasks-per-node=1
        --cpus-per-task="$_cpus" --kill-on-bad-exit=1 "${_launch[@]}")
fi
export _master_address _master_port

_stopped=''
trap '_stopped=143' TERM HUP
trap '_stopped=130' INT
for ((_attempt = 0; _attempt <= _retries; _attempt++)); do
    SECONDS=0 _late='' _pause=0.1
    echo "--- attempt of $(date '+%Y-%m-%d %H:%M:%S %z')" >>"$_folder/trainer.log"
    set -m # the trainer leads a group, which can be ended whole
    "${_launch[@]}" </dev/null & # a terminal would stop who reads it here
    _pid=$!
    set +m
    while kill -0 "$_pid" 2>/dev/null; do
        if [ "$_limit" -gt 0 ] && [ "$SECONDS" -ge "$_limit" ]; then _late=1; fi
        if [ -n "$_stopped$_late" ]; then end_trainer; fi
        sleep "$_pause"
        _pause=0.5
    done
    wait "$_pid"
    _code=$?
    end_leftovers
    if whole_result; then
        note_spent true
        echo "$_name: trained"
        exit 0
    fi
    sleep 0.3 # a trainer that is told to stop may end well, sooner than this script is told
    if [ -n "$_stopped" ]; then
        note_spent false
        echo "$_name: stopped; the same command goes on" >&2
        exit "$_stopped"
    fi
    if [ "$_code" = 0 ] && [ -z "$_late" ] && [ ! -e "$_folder/result.json" ]; then
        note_spent true
        echo "$_name: trained, and left no result.json: cuvee collect reads what there is"
        exit 0
    fi
    note_spent false
    _why="the trainer ended with code $_code"
    if [ "$_code" = 0 ]; then _why='its result.json is not whole, or of another run'; fi
    if [ -n "$_late" ]; then _why="the trainer took longer than $_limit seconds"; fi
    echo "$_name: $_why (attempt $((_attempt + 1)) of $((_retries + 1)))" >&2
done
echo "$_name: failed; the end of $_folder/trainer.log:" >&2
tail -n 12 -- "$_folder/trainer.log" >&2
exit 1
"""
FOLLOWED = """\
follow() { # wait for run_one.sh, which a signal does not end at once
    local _pid=$!
    wait "$_pid"
    _code=$?
    while kill -0 "$_pid" 2>/dev/null; do
        wait "$_pid"
        _code=$?
    done
}
"""
ALL_BODY = """
_here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P) || exit 2
_stopped='' _failed=''
stop() {
    _stopped=$1
    kill -TERM "${!-}" 2>/dev/null
}
trap 'stop 143' TERM HUP
trap 'stop 130' INT
for _run in "${_runs[@]}"; do
    bash "$_here/run_one.sh" "$_run" &
    if [ -n "$_stopped" ]; then kill -TERM "$!"; fi # told just before it began
    follow
    if [ -n "$_stopped" ]; then exit "$_stopped"; fi
    if [ "$_code" = 2 ]; then exit 2; fi # no run can be begun
    if [ "$_code" != 0 ]; then _failed="$_failed $_run"; fi
done
if [ -n "$_failed" ]; then
    echo "Failed, each with its trainer.log, and begun again by the same command:$_failed" >&2
    exit 1
fi
echo "All ${#_runs[@]} runs are trained: cuvee collect reads them"
"""
ARRAY_BODY = """
_again=''
stop() { kill -TERM "$!" 2>/dev/null; }
trap stop TERM
trap '_again=1; stop' USR1
bash "$_swarm/run_one.sh" "${_runs[$SLURM_ARRAY_TASK_ID]}" &
follow
if [ -n "$_again" ] && [ "$_code" != 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$_retries" ]; then
    scontrol requeue "$SLURM_JOB_ID" # its time is over: it goes on from state/ in another job
fi
exit "$_code"
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
    listed = "\n".join(["_runs=(", *(f"    {shlex.quote(run)}" for run in runs), ")\n"])
    return {
        ONE: _run_one(program),
        ALL: "#!/usr/bin/env bash\n"
        "# Trains the runs of this swarm one after the other; called again, it goes on.\n"
        f"set -u\n{listed}{FOLLOWED}{ALL_BODY}",
        ARRAY: f"#!/usr/bin/env bash\n{_directives(program, len(runs), name)}"
        "# Trains the runs of this swarm: sbatch array.slurm. The jobs keep this list of runs,\n"
        "# whatever is exported later. Options of sbatch go before those above.\n"
        f"set -u\n_swarm={shlex.quote(str(folder))} _retries={program.retries}\n"
        f"{listed}{FOLLOWED}{ARRAY_BODY}",
        LIST: "".join(f"{run}\n" for run in runs),
    }


def trainer_id(identity: str) -> str:
    """What `TRAINER_ID` has: a run of another trainer than run_one.sh starts is refused.

    Args:
        identity: of the trainer, as it stands in the spec of the run.
    """
    return hashlib.sha256(identity.encode()).hexdigest()


def _limit(program: TrainerProgram) -> int:
    return math.ceil(program.timeout) if math.isfinite(program.timeout) else 0


def _run_one(program: TrainerProgram) -> str:
    head = ONE_HEAD.format(
        cpus=max(1, math.floor(program.cpus)),
        gpus=math.ceil(program.gpus),
        nodes=program.nodes,
        retries=program.retries,
        limit=_limit(program),
        trainer=trainer_id(program.identity),
    )
    words = program.words(Path("{run}"), {name: f"{{{name}}}" for name in PLACES})
    taken = {name: VARIABLE.fullmatch(value) for name, value in program.environment.items()}
    asked = [
        f'[ -n "${{{one}+x}}" ] || {{ echo "{one} is not set here, and proxy.trainer.environment'
        f' takes its value" >&2; exit 2; }}\n'
        for one in sorted({known[1] for known in taken.values() if known})
    ]
    given = {
        name: f'"${known[1]}"' if known else shlex.quote(program.environment[name])
        for name, known in taken.items()
    }
    own = {"CUVEE_RUN_JSON": '"$_run"', "CUVEE_NODE_RANK": '"$_node_rank"'}
    values = {**own, "OMP_NUM_THREADS": '"$_cpus"', **given}
    begin = [
        "    # shellcheck disable=SC2318 # at once, so that what is taken is the caller's\n",
        f"    export {' '.join(f'{name}={value}' for name, value in values.items())}\n",
        f"    set -- {' '.join(map(_word, words))}\n",
    ]
    return "".join([head, *asked, _unchanged(program), ONE_NODE, *begin, ONE_BODY])


def _word(word: str) -> str:
    """A word of the command, in which places are variables of the script."""
    parts = PLACE.split(word)  # text and the names of places in turn
    return "".join(f'"$_{p}"' if i % 2 else shlex.quote(p) for i, p in enumerate(parts)
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
    limit = _limit(program)
    asked = {
        "job-name": re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:64],
        "array": f"0-{count - 1}",
        "nodes": program.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": math.ceil(program.cpus),
        "gpus-per-node": math.ceil(program.gpus) or None,
        "mem": f"{math.ceil(program.memory / (1 << 20))}M" if program.memory else None,
        "time": math.ceil(limit / 60) + SPARE_MINUTES if limit else None,
        "signal": "B:USR1@60",
        "open-mode": "append",
    }  # fmt: skip
    lines = [f"#SBATCH --{key}={value}\n" for key, value in asked.items() if value is not None]
    return "".join([*lines, "#SBATCH --requeue\n"])
