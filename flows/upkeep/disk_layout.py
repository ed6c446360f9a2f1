"""What lies where: the folders of a store and the files of a study, as `cuvee.flows` leaves them.

What a home holds besides, and what of it may go, is in `clean.KINDS`.
"""

from collections.abc import Mapping

STORE_FOLDERS: Mapping[str, str] = {
    "runs": "a folder per fingerprint of a run: `result.json`, its scores, curve and cost, or why "
    "it failed; `units.npz`, its scores by document and item, where they were scored here",
    "cards": "finished studies, by the fingerprint of their recommendation",
    "answers": "which finished study answers a recipe, by the recipe's digest",
    "latest": "the newest finished study of a name",
    "recommendations": "recommendations by what they were computed from, so that none is computed "
    "twice",
    "approvals": "who approved which recommendation, for what, and when",
    "handoffs": "calls of a handoff: the claim before, the outcome after",
    "manifests": "manifests of exports, by their hash",
    "scorings": "what the scores of runs were measured with, by its hash",
    "corpus-states": "of each study, what decides its corpora beside their text: what is held out, "
    "the tokenizer, the order in which domains keep what several hold",
    "drawn-sizes": "of each study, the sizes of domains that its mixtures were drawn at",
    "longest-matches": "what a domain's training text has of benchmark items, by the hash of both",
    "heldout": "keys of the documents that studies hold out, by their sha256",
    "tokenizers": "tokenizers that were trained, by their sha256",
    "beginnings": "scores of the checkpoint that continual pretraining goes on from",
    "untrained": "scores of a model before its first step",
    "pack-probes": "how fast packs are on a GPU, by its kind, their size and torch's version",
    "prediction-scores": "how predictions of larger runs came out",
    "predictions": "predictions that were written down before the runs that test them",
    "claims": "leases: which sweep trains a run, so that two never train the same",
    "sweeps": "heartbeats of the sweeps that hold leases",
    "progress": "how far the sweeps are that run, renewed every few seconds",
    "corpora": "prepared corpora, where the store is remote, by the hash of their manifest",
    "benchmarks": "benchmarks that workers are scored on, where the store is remote, by their hash",
    "checkpoints": "packs in training, branches and models, where the store is remote",
}
STUDY_FILES: Mapping[str, str] = {
    "report.html": "the report: what is recommended, how sure, against what, at what cost",
    "report.md": "the same as text",
    "recommendation.json": "the recommendation: shares by domain and stage, intervals, gains",
    "summary.json": "the study in a few numbers, for programs",
    "card.json": "the finished study, as approvals and exports read it",
    "plots": "the pictures of the report, one file each",
    "recipe.yaml": "the recipe that was run, with `--set` applied",
    "fit/": "the same files, of `cuvee fit`",
    "exports/": "exports, a folder per format",
    "earlier/": "what other recipes of this name left",
    "predictions/": "copies of the predictions that were written down before larger runs",
    "looks.jsonl": "what a schedule found at each look, a line each",
    "skills.json, skills.dot, skills.svg": "the skill graph, of method `skill_it`",
}
