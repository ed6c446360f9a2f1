"""Olmix's fit files are read as they are, and rightly where Olmix errs."""

import json

import numpy as np
import pytest
from rich.console import Console

from cuvee.flows.console import print_study
from cuvee.flows.handoff import handoff
from cuvee.flows.recipe import load, olmix
from cuvee.flows.study.finished import finished_study
from cuvee.flows.study.refit import refit
from cuvee.flows.study.table_problem import pose_table_problem, read_tables, with_table_gaps
from cuvee.flows.workspace import open_workspace
from cuvee.mixtures.errors import CuveeError, DataError, EvidenceError, RecipeError
from cuvee.mixtures.objectives import WeightedMean

pytestmark = pytest.mark.usefixtures("quick_pictures_everywhere")

DOMAINS = ("web:art:high", "web:law:low", "code:py:high")
METRICS = ("algebra::olmes", "geometry::olmes", "mbpp:3shot", "noisy_qa")
FILE = """
swarm: {ratios: ratios.csv, metrics: metrics.csv}
priors:
  relative_sizes: {"web:art:high": 0.5, "web:law:low": 0.3, "code:py:high": 0.2}
  token_counts: {"web:art:high": 5_000_000, "web:law:low": 3_000_000, "code:py:high": 2_000_000}
eval:
  type: offline
  tasks: {math: ["algebra::olmes", "geometry::olmes"], code: ["mbpp:3shot"], qa: [noisy_qa]}
regression: {type: log_linear, seed: 3, n_test: 0, train_split: 1.0, aggregate_task_families: true}
proposer: {type: exact, temperature: null, kl_reg: 0.05, fit_only: false, make_worst_mix: false}
constraints: {enabled: true, target_tokens: 20_000_000, repetition_factor: 4.0}
filtering:
  drop_metrics: ["geometry::olmes", noisy_qa]
  obj_weights: {math: "7/52.0", code: "45/52"}
"""


def truth(W):
    """Scores (n, 4): two pull to the first and the last domain, geometry pulls the other way."""
    return np.column_stack(
        [
            1 + np.exp(-2 * W[:, 0]),
            1 + np.exp(2 * W[:, 0]),
            1 + np.exp(-3 * W[:, 2]),
            1 + np.exp(W[:, 2]),
        ]
    )


def swarm(folder, text=FILE, *, rows=24, order=1, keys=("run", "run_id")):
    """A swarm's three files; the metrics stand in the reverse order of the ratios."""
    W = np.random.default_rng(5).dirichlet(np.ones(3), rows)
    Y = truth(W)
    left = [f"{keys[0]},name,index,{','.join(DOMAINS)}"]
    left += [
        f"r{i:02d},swarm-{i},{i}," + ",".join(map(repr, map(float, w))) for i, w in enumerate(W)
    ]
    right = [f"r{i:02d},swarm-{i},{n}," for n, i in enumerate(range(rows)[::order])]
    right = [r + ",".join(map(repr, map(float, Y[int(r[1:3])]))) for r in right]
    (folder / "ratios.csv").write_text("\n".join(left) + "\n")
    head = f"{keys[1]},name,index,{','.join(METRICS)}"
    (folder / "metrics.csv").write_text("\n".join([head, *right]) + "\n")
    path = folder / "my fit.yaml"
    path.write_text(text)
    return path, W, Y


def test_a_fit_file_becomes_a_recipe(tmp_path):
    """Catches a field that is read and forgotten, or a fraction read as text."""
    path, _, _ = swarm(tmp_path)
    assert olmix.detect(path)
    given, text, notes = olmix.load_olmix(path)
    assert text == FILE and notes == ()
    assert given.name == "my-fit" and given.seed == 3 and given.full_scale.tokens == 20_000_000
    assert given.method["laws"] == [{"name": "log_linear", "offset": "positive"}]
    assert given.method["search"] == {"name": "exact", "kl_reg": 0.05}
    assert given.constraints.epochs == 4.0
    objective = given.build_objective()
    assert isinstance(objective, WeightedMean)
    assert dict(objective.weights) == pytest.approx({"math": 7 / 52, "code": 45 / 52})


def test_the_row_order_of_the_tables_does_not_matter(tmp_path):
    """Catches Olmix's pairing by position: rows, even their `index`, are in another order."""
    path, W, Y = swarm(tmp_path, order=-1)
    given, _, _ = olmix.load_olmix(path)
    joined = read_tables(given)
    assert joined.domains == DOMAINS and joined.targets == ("math", "code")
    np.testing.assert_allclose(joined.W, W)
    np.testing.assert_allclose(joined.Y, Y[:, [0, 2]])


def test_a_dropped_metric_leaves_its_family(tmp_path):
    """Catches Olmix's order: geometry, dropped, must not pull the mean of math."""
    path, _, Y = swarm(tmp_path)
    (tmp_path / "all.yaml").write_text(FILE.replace('["geometry::olmes", noisy_qa]', "[noisy_qa]"))
    math = read_tables(olmix.load_olmix(path)[0]).Y[:, 0]
    both = read_tables(olmix.load_olmix(tmp_path / "all.yaml")[0]).Y[:, 0]
    np.testing.assert_allclose(math, Y[:, 0])
    np.testing.assert_allclose(both, Y[:, :2].mean(axis=1))


def test_without_families_weights_and_drops_go_by_metric(tmp_path):
    """Catches weights by position after a drop, and dropped columns that are still read."""
    text = FILE.replace("aggregate_task_families: true", "aggregate_task_families: false")
    text = text.replace(
        '{math: "7/52.0", code: "45/52"}', '{"algebra::olmes": 1, "mbpp:3shot": "3/2"}'
    )
    path, _, _ = swarm(tmp_path, text)
    table = (tmp_path / "metrics.csv").read_text().splitlines()
    broken = [table[0], *(",".join([*row.split(",")[:-1], "nan"]) for row in table[1:])]
    (tmp_path / "metrics.csv").write_text("\n".join(broken))
    given, _, _ = olmix.load_olmix(path)
    assert read_tables(given).targets == ("algebra::olmes", "mbpp:3shot")
    assert dict(given.build_objective().weights) == {"algebra::olmes": 1.0, "mbpp:3shot": 1.5}


def test_the_prior_and_the_tokens_that_exist_may_differ(tmp_path):
    """Catches caps computed from the prior: art has 1/10 of the tokens but half of the prior."""
    text = FILE.replace('"web:art:high": 5_000_000', '"web:art:high": 1_000_000')
    path, _, _ = swarm(tmp_path, text)
    given, _, notes = olmix.load_olmix(path)
    assert any("relative_sizes" in note for note in notes)
    problem, _ = pose_table_problem(given, read_tables(given))
    np.testing.assert_allclose(problem.domains.natural, [0.5, 0.3, 0.2], atol=1e-9)
    np.testing.assert_allclose(problem.constraints.bounds[1], [0.2, 0.6, 0.4], atol=1e-9)


@pytest.fixture(scope="module")
def whole_way(tmp_path_factory, quick_pictures_everywhere):
    """A fit file that is approved and handed on, its home, and the folder of its study."""
    root = tmp_path_factory.mktemp("olmix")
    hand = "handoff: {format: json, to: /x, webhook: 'https://cluster/hook'}\n"
    path, _, _ = swarm(root, FILE + "export: {sequence_length: 4k}\n" + hand, order=-1)
    given, text, _ = olmix.load_olmix(path)
    home = open_workspace(root / "home")
    return path, home, refit(given, text, home)


def test_the_whole_way_from_a_fit_file_to_a_report(whole_way):
    """Catches an answer that ignores the caps: code pays most but may be no more than 40 %."""
    _, _, folder = whole_way
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["weights"]["code:py:high"] == pytest.approx(0.4, abs=1e-3)
    assert summary["rank_correlation"] > 0.95
    report = (folder / "report.md").read_text()
    assert "code:py:high at most 4 epochs (share 0.4)" in report.replace("\\", "")
    assert "| 2,000,000 | 4.00 |" in report and "What one aim costs another" in report


def test_domain_keys_are_printed_as_they_are(whole_way):
    """Catches `:art:` printed as a picture, and a name in brackets taken for a style."""
    out = Console(record=True, width=120)
    print_study(out, whole_way[2], "")
    said = out.export_text()
    assert all(name in said for name in DOMAINS)


def test_without_counts_nothing_is_invented(tmp_path):
    """Catches epochs from made-up token counts."""
    text = FILE[: FILE.index("  token_counts")] + FILE[FILE.index("eval:") :]
    text = text.replace(
        "enabled: true, target_tokens: 20_000_000", "enabled: false, target_tokens: null"
    )
    path, _, _ = swarm(tmp_path, text)
    given, text, notes = olmix.load_olmix(path)
    assert sum("epochs at full scale are unknown" in note for note in notes) == 2
    folder = refit(given, text, open_workspace(tmp_path / "home"))
    answer = json.loads((folder / "recommendation.json").read_text())
    assert answer["epochs"] == []
    report = (folder / "report.md").read_text()
    assert "Epochs at full scale are unknown" in report and "tokens that exist |" not in report


def test_the_search_proposer_recommends_a_mixture_that_was_run(tmp_path):
    """Catches a look-up that is answered by a search of the simplex, or that breaks the caps."""
    text = FILE.replace("type: log_linear", "type: search").replace("type: exact", "type: search")
    path, W, _ = swarm(tmp_path, text.replace("kl_reg: 0.05", "kl_reg: null"))
    given, _, _ = olmix.load_olmix(path)
    given = given.model_copy(update={"method": {**given.method, "laws": ["log_linear"]}})
    problem, history = pose_table_problem(given, read_tables(given))
    found = given.build_method().recommend(problem, history, np.random.default_rng(0))
    assert np.abs(W - found.weights).sum(axis=1).min() < 1e-9
    assert problem.constraints.satisfied(found.weights)


@pytest.mark.parametrize(("law", "name"), [("gp", "gaussian_process"), ("lightgbm", "lightgbm")])
def test_other_laws_go_with_simulation(tmp_path, law, name):
    """Catches a type that is accepted but fitted as log_linear."""
    text = FILE.replace("type: log_linear", f"type: {law}").replace(
        "type: exact", "type: simulation"
    )
    path, _, _ = swarm(tmp_path, text.replace("temperature: null", "temperature: 0.5"))
    given, _, notes = olmix.load_olmix(path)
    assert given.method["laws"] == [{"name": name}]
    assert given.method["search"] == {"name": "simulate", "temperature": 0.5}
    assert any("kl_reg is for the exact proposer" in note for note in notes)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("proposer:", "propser:", "'propser', did you mean 'proposer'"),
        ("kl_reg", "kl_regg", "'proposer.kl_regg', did you mean 'kl_reg'"),
        ("drop_metrics", "drop_metric", "did you mean 'drop_metrics'"),
        ("type: log_linear", "type: loglinear", "regression.type.*'loglinear'"),
        ("type: log_linear", "type: lightgbm", "exact needs regression.type log_linear"),
        ("target_tokens: 20_000_000", "target_tokens: null", "target_tokens"),
        ("make_worst_mix: false", "make_worst_mix: true", "make_worst_mix"),
        ('"7/52.0"', '"7/0"', "obj_weights.math.*'7/0'"),
        ('"7/52.0"', '"__import__(1)"', "obj_weights.math"),
        ('code: "45/52"', "cod: 1", "lacking code, unknown cod"),
        ("type: exact", "type: search", "need each other"),
    ],
)
def test_a_mistake_is_named(tmp_path, old, new, words):
    """Catches a field that is dropped in silence, and a fraction that is evaluated."""
    assert old in FILE
    path, _, _ = swarm(tmp_path, FILE.replace(old, new))
    with pytest.raises(RecipeError, match=f"(?s){words}"):
        olmix.load_olmix(path)


def test_null_regularization_is_none_and_said(tmp_path):
    """Catches a crash, or a default price in place of none."""
    path, _, _ = swarm(tmp_path, FILE.replace("kl_reg: 0.05", "kl_reg: null"))
    given, _, notes = olmix.load_olmix(path)
    assert given.method["search"]["kl_reg"] == 0.0
    assert any("kl_reg is null" in note for note in notes)


def test_a_metric_that_does_not_exist_is_named(tmp_path):
    path, _, _ = swarm(tmp_path, FILE.replace('["mbpp:3shot"]', '["mbpp:3shots"]'))
    with pytest.raises(DataError, match="'mbpp:3shots'; did you mean 'mbpp:3shot'"):
        read_tables(olmix.load_olmix(path)[0])


def test_runs_of_one_table_only_are_left_out_and_counted(tmp_path):
    """Catches both a refusal of Olmix's files and a loss that nobody is told of."""
    path, _, _ = swarm(tmp_path)
    table = (tmp_path / "metrics.csv").read_text().splitlines()
    (tmp_path / "metrics.csv").write_text("\n".join([*table[:5], *table[6:]]))
    joined = read_tables(olmix.load_olmix(path)[0])
    assert joined.left_out == ("r04",) and len(joined.ids) == 23
    (tmp_path / "metrics.csv").write_text("\n".join([table[0], *(f"x{r}" for r in table[1:])]))
    with pytest.raises(EvidenceError, match="no run in common"):
        read_tables(olmix.load_olmix(path)[0])


EARLY = FILE.replace("target_tokens: 20_000_000", "target_tokens: 9_000_000")


def alone(folder, text):
    """A swarm of which every other run has no share of the second domain."""
    path, W, _ = swarm(folder, text)
    lines = (folder / "ratios.csv").read_text().splitlines()
    for i in range(0, 24, 2):
        left = W[i, 0] + W[i, 1]
        lines[i + 1] = f"r{i:02d},swarm-{i},{i},{float(left)!r},0.0,{float(W[i, 2])!r}"
    (folder / "ratios.csv").write_text("\n".join(lines) + "\n")
    return path


def test_support_domains_choose_the_runs_and_what_can_be_chosen(tmp_path):
    """Catches runs on other domains that are kept and rescaled, and sizes of what is left out."""
    chosen = 'filtering:\n  support_domains: ["web:art:high", "code:py:high"]'
    path = alone(tmp_path, EARLY.replace("filtering:", chosen))
    given, _, _ = olmix.load_olmix(path)
    joined = read_tables(given)
    assert joined.domains == (DOMAINS[0], DOMAINS[2])
    assert joined.ids == tuple(f"r{i:02d}" for i in range(0, 24, 2)) and len(joined.aside) == 12
    np.testing.assert_allclose(joined.W.sum(axis=1), 1)
    problem, history = pose_table_problem(given, joined)
    np.testing.assert_allclose(problem.domains.natural, [5 / 7, 2 / 7], atol=1e-9)
    answer = given.build_method().recommend(problem, history, np.random.default_rng(0))
    said = with_table_gaps(answer, problem, given, joined).warnings
    assert any("12 runs were set aside" in text for text in said)


def test_kept_sources_want_a_share_of_each(tmp_path):
    """Catches keep_sources read as support_domains: a run on one of the two is not kept."""
    chosen = 'filtering:\n  keep_sources: ["web:art:high", "code:py:high"]'
    path = alone(tmp_path, EARLY.replace("filtering:", chosen))
    lines = (tmp_path / "ratios.csv").read_text().splitlines()
    (tmp_path / "ratios.csv").write_text(
        "\n".join([lines[0], "r00,swarm-0,0,0.0,0.0,1.0", *lines[2:]]) + "\n"
    )
    joined = read_tables(olmix.load_olmix(path)[0])
    assert "r00" in joined.aside and joined.ids == tuple(f"r{i:02d}" for i in range(2, 24, 2))


def test_a_fixed_weight_is_kept_and_the_rest_chosen(tmp_path):
    """Catches a weight that is only a bound, and one that is dropped from the answer."""
    fixed = 'filtering:\n  fixed_weight: {"web:law:low": "1/4"}'
    path, _, _ = swarm(tmp_path, FILE.replace("filtering:", fixed))
    given, _, _ = olmix.load_olmix(path)
    problem, history = pose_table_problem(given, read_tables(given))
    answer = given.build_method().recommend(problem, history, np.random.default_rng(0))
    assert answer.weights[1] == pytest.approx(0.25, abs=1e-4) and answer.weights[2] > 0.3


def test_the_natural_kl_goes_by_the_tokens(tmp_path):
    """Catches the manual prior where the natural mixture was asked for: 5 : 3 : 2 against equal."""
    text = FILE.replace("0.5, ", "0.4, ").replace(": 0.2}", ": 0.3}")
    for asked, natural in (("false", [0.4, 0.3, 0.3]), ("true", [0.5, 0.3, 0.2])):
        given = text.replace("proposer: {", f"proposer: {{use_natural_kl: {asked}, ")
        path, _, _ = swarm(tmp_path, given)
        found, _, _ = olmix.load_olmix(path)
        problem, _ = pose_table_problem(found, read_tables(found))
        np.testing.assert_allclose(problem.domains.natural, natural, atol=1e-9)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ('keep_sources: ["code:py:high"], support_domains: ["code:py:high"]', "both choose"),
        ("support_domains: [code]", "names 'code', of which priors has no size"),
        ('fixed_weight: {"web:art:high": 0.7, "web:law:low": 0.4}', "sums to 1.1"),
        ('fixed_weight: {"web:art:high": -0.1}', "fixed_weight.web:art:high"),
        (
            'support_domains: ["web:art:high"], fixed_weight: {"web:law:low": 0.1}',
            "which the filter leaves out",
        ),
    ],
)
def test_filters_without_a_meaning_are_named(tmp_path, field, words):
    """Catches a filter that is read and then contradicted in silence."""
    head = FILE[: FILE.index("filtering:")]
    path, _, _ = swarm(tmp_path, f"{head}filtering: {{{field}}}\n")
    with pytest.raises(RecipeError, match=words):
        olmix.load_olmix(path)


def test_other_commands_say_which_one_reads_it():
    with pytest.raises(RecipeError, match="cuvee fit"):
        load.parse(FILE)


def test_null_is_what_olmix_writes_for_a_field_that_was_not_given(tmp_path):
    """Catches a dump of Olmix's own configuration that is refused: every default, None as null."""
    nulls = "\nregression: null\nproposer: {type: exact, kl_reg: null}\nconstraints: null\n"
    text = FILE[: FILE.index("eval:")] + "eval: null" + nulls + "filtering: {obj_weights: null}\n"
    path, _, _ = swarm(tmp_path, text)
    plain = FILE[: FILE.index("eval:")] + "proposer: {type: exact}\n"
    given = olmix.load_olmix(path)[0]
    path.write_text(plain)
    assert given.determining() == olmix.load_olmix(path)[0].determining()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"web:art:high": 5_000_000, ', "", "priors.token_counts must be.*web:art:high"),
        ('"web:art:high": 0.5, ', "", "priors.relative_sizes must be.*web:art:high"),
        ("5_000_000,", "5_000_000, other: 3,", "priors.token_counts names other"),
        ("  token_counts:", "token_counts:", "'token_counts'; it belongs into 'priors'"),
        ("target_tokens: 20_000_000", "target_tokens: .inf", "constraints.target_tokens.*finite"),
        ("metrics: metrics.csv", "metric: metrics.csv", "'swarm.metric', did you mean 'metrics'"),
    ],
)
def test_errors_speak_of_the_fields_of_a_fit_file(tmp_path, old, new, words):
    """Catches advice about `tables.sizes`, a field that no fit file has."""
    assert old in FILE
    path, _, _ = swarm(tmp_path, FILE.replace(old, new))
    with pytest.raises(CuveeError, match=words) as caught, olmix.in_its_words():
        given = olmix.load_olmix(path)[0]
        pose_table_problem(given, read_tables(given))
    assert "tables." not in str(caught.value)


def test_sizes_carry_suffixes_everywhere(tmp_path):
    """Catches 40B that is read in one field and refused in the next."""
    text = FILE.replace("5_000_000", "5M").replace("3_000_000", "3M").replace("2_000_000", "2e6")
    path, _, _ = swarm(tmp_path, text.replace("20_000_000", "20M"))
    given = olmix.load_olmix(path)[0]
    assert given.full_scale.tokens == 20_000_000
    assert given.tables.token_counts["code:py:high"] == 2_000_000
    assert given.determining() == olmix.load_olmix(swarm(tmp_path)[0])[0].determining()
    relative = FILE.replace("0.5, ", "50B, ").replace("0.3, ", "30B, ").replace("0.2}", "20B}")
    sized = olmix.load_olmix(swarm(tmp_path, relative)[0])[0]
    problem, _ = pose_table_problem(sized, read_tables(sized))
    np.testing.assert_allclose(problem.domains.natural, [0.5, 0.3, 0.2])


def test_what_a_fit_file_gave_is_approved_exported_and_handed_on(whole_way, tmp_path):
    """Catches a dead end after a fit: a file that approve, export and handoff refuse, or read as
    another study than the fit did."""
    path, home, _ = whole_way
    again, _, _ = olmix.load_olmix(path)
    handoff.approve(again, home, by="ada")
    _, content = handoff.export(again, home, form="json", to=str(tmp_path / "out"))
    assert content["approval"]["by"] == "ada" and content["target_tokens"] == 20_000_000
    card = finished_study(again, home)
    told = load.parse(olmix.as_recipe(again))  # what the flow of a handoff reads
    assert told == again and told.digest == again.digest
    assert handoff.adopt_approval(told, home, card, call=True).by == "ada"


def test_a_search_of_few_runs_looks_up_the_best_and_fits_no_law(tmp_path):
    """Catches a refusal for want of runs that no look-up needs, and an answer that was not run."""
    text = FILE.replace("type: log_linear", "type: search").replace("type: exact", "type: search")
    path, W, Y = swarm(tmp_path, text, rows=6)
    given, made, _ = olmix.load_olmix(path)
    folder = refit(given, made, open_workspace(tmp_path / "home"))
    found = json.loads((folder / "summary.json").read_text())
    level = (7 * Y[:, 0] + 45 * Y[:, 2]) / 52  # of the metrics that are kept, by their weights
    epochs = W * 20e6 / [5e6, 3e6, 2e6]
    fits = (epochs <= 4).all(axis=1)
    best = W[int(np.argmin(np.where(fits, level, np.inf)))]
    assert list(found["weights"].values()) == pytest.approx(best.tolist(), abs=1e-9)
    assert "one run" in found["verdict"] and found["law"] is None
