"""What the full run drew against what was recommended: mistakes that are made here, and told there.

Each mistake is made as the trainer would make it, with numbers worked out by hand from the blend
of `export_readers`: web, code and chat with shares 0.5, 0.3 and 0.2 of 40.96M tokens; 30M, 8M and
4.096M exist, in documents of 500, 4,000 and 50 tokens and 4, 3 and 3.9 bytes each.
"""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
from export_readers import FIXED, STAGED, TOKENS, dealt_greedily

from cuvee.mixtures.errors import CuveeError
from cuvee.tasks.export.torchtitan import BODY
from cuvee.tasks.trainer.achieved_shares import compare_drawn
from cuvee.tasks.trainer.drawn_tokens import DrawnTokens, read_drawn_tokens

NAMES = ("web", "code", "unused", "chat: short")
MISTAKES = {  # relative tokens of web, code, unused and chat, and the words of the cause
    "documents": ((0.5 * 500, 0.3 * 4000, 0, 0.2 * 50), "shares of documents"),
    "reversed": ((0.5 / 500, 0.3 / 4000, 0, 0.2 / 50), "documents were taken for shares of tokens"),
    "bytes": ((0.5 / 4, 0.3 / 3, 0, 0.2 / 3.90625), "shares of bytes"),
    "turns": ((1, 1, 0, 1), "domains came in turn"),
    "documents in turn": ((500, 4000, 0, 50), "documents came in turn"),
    "sizes": ((30, 8, 0, 4.096), "domains came by their size"),
    "everything": ((30, 8, 5, 4.096), "all domains of the study"),
    "passes": ((0.5 * 30, 0.3 * 8, 0, 0.2 * 4.096), "passes over each domain"),
    "once": ((28.864, 8, 0, 4.096), "code, chat: short ran out"),
    "lost": ((0.5, 0.3, 0, 0), "chat: short was not drawn at all"),
    "swapped": ((0.3, 0.5, 0, 0.2), "web and code were taken for each other"),
    "names": ((0.2, 0.3, 0, 0.5), "by place to domains in order of their names"),
    "another": ((0.7, 0.1, 0.1, 0.1), "the mixture 'natural' was trained"),
}


def drawn(relative, total: float = TOKENS) -> DrawnTokens:
    counts = np.array(relative) / sum(relative) * total
    return DrawnTokens((dict(zip(NAMES, counts.tolist(), strict=True)),), "counts")


@pytest.mark.parametrize("made", MISTAKES)
def test_a_mistake_is_told_by_what_it_gives(made):
    """Catches a difference without a cause, and a cause that would give other numbers."""
    relative, words = MISTAKES[made]
    others = {"the mixture 'natural'": {"web": 7.0, "code": 1.0, "unused": 1.0, "chat: short": 1.0}}
    found = compare_drawn(FIXED, drawn(relative), others=others)
    assert found.differences and any(words in cause for cause in found.causes), found.causes
    moved = np.array(relative) / sum(relative) + [0.05, -0.05, 0.05, -0.05]
    told = compare_drawn(FIXED, drawn(np.maximum(moved, 0.0)), others=others)
    assert told.differences and not any(words in cause for cause in told.causes)


@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_is_no_difference_and_more_is_one(sign):
    """Catches a comparison to the last digit, and one that forgives what exports may not lose."""
    near = (0.5 - sign * 0.0018, 0.3 + sign * 0.0018, 0, 0.2)
    assert compare_drawn(FIXED, drawn(near)).differences == ()
    far = compare_drawn(FIXED, drawn((0.5 - sign * 0.0035, 0.3 + sign * 0.0035, 0, 0.2)))
    assert [d.name for d in far.domains if d.off] == ["code"] and len(far.differences) == 1
    assert far.domains[1].epochs == pytest.approx((0.3 + sign * 0.0035) * TOKENS / 8e6)


def test_a_run_that_ended_early_is_held_to_its_shares():
    """Catches a short run told as off in every domain, and a source that ended it unnamed."""
    short = compare_drawn(FIXED, drawn((0.5, 0.3, 0, 0.2), TOKENS / 4))
    assert len(short.differences) == 1 and "ended early" in short.differences[0]
    assert short.causes == () and not any(d.off for d in short.domains)
    ran_out = compare_drawn(FIXED, drawn((0.5, 0.3, 0, 0.2), 4_096_000 / 0.2))
    assert ran_out.causes == ("the stream ended as chat: short ran out, which was not repeated",)


@pytest.mark.parametrize(("tokens", "told"), [(8_008_000 + 512, False), (8_008_000 + 1024, True)])
def test_a_cap_is_broken_by_more_than_an_export_may_deliver(tokens, told):
    """Catches the sequence forgotten that a delivery may go over a cap: 8M, 0.1 % and 512."""
    shares = (0.6, tokens / TOKENS, 0.0, 0.4 - tokens / TOKENS)
    stage = type(FIXED.stages[0])(shares)
    capped = dataclasses.replace(FIXED, caps={"code": 1.0}, stages=(stage,))
    found = compare_drawn(capped, drawn(shares)).differences
    assert found == (("code: 1.00 passes, more often than constraints.epochs allows",) * told)


def test_sequences_drawn_at_random_are_told_from_mistakes():
    """Catches noise of a short run blamed on the mixture, and a mistake excused as noise."""
    counts = np.random.default_rng(3).multinomial(2000, (0.5, 0.3, 0.0, 0.2)) * 512.0
    blend = dataclasses.replace(FIXED, tokens=2000 * 512)
    found = compare_drawn(blend, drawn(counts, counts.sum()))
    assert found.differences and "draws at random" in found.causes[0]
    assert not compare_drawn(blend, drawn((0.6, 0.2, 0, 0.2), 2000 * 512)).causes


def test_what_was_exported_is_compared_too():
    """Catches a run that follows the recommendation, and not the export that it was given."""
    found = compare_drawn(
        FIXED, drawn((0.5, 0.3, 0, 0.2)), {"web": 6.0, "code": 2.0, "chat: short": 2.0}
    )
    assert [d.off for d in found.domains] == [True, True, False, False]
    assert found.domains[0].exported == pytest.approx(0.6 * TOKENS)
    said = "web: 50.00% drawn (20,480,000 tokens), 50.00% recommended, 60.00% exported"
    assert found.differences[0] == said


def staged(*parts: tuple[float, tuple[float, ...]]) -> DrawnTokens:
    """Running totals at every 1 % of the run, whose parts have these shares."""
    points, so_far = [], np.zeros(4)
    for i in range(100):
        done = 0.0
        for share, weights in parts:
            done += share
            if (i + 0.5) / 100 < done:
                so_far = so_far + np.array(weights) * TOKENS / 100
                break
        points.append(dict(zip(NAMES, so_far.tolist(), strict=True)))
    return DrawnTokens(tuple(points), "counts")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (((0.75, (0.6, 0.3, 0, 0.1)), (0.25, (0.2, 0.3, 0, 0.5))), None),
        (((0.25, (0.2, 0.3, 0, 0.5)), (0.75, (0.6, 0.3, 0, 0.1))), "in the order 2, 1"),
        (((1.0, (0.6, 0.3, 0, 0.1)),), "first stage was kept to the end"),
        (((1.0, (0.5, 0.3, 0, 0.2)),), "mean of all stages"),
    ],
)
def test_stages_are_held_each_to_its_own(parts, words):
    """Catches stages in another order, which the whole run's shares do not show."""
    found = compare_drawn(STAGED, staged(*parts))
    assert len(found.stages) == 2 and bool(found.differences) == (words is not None)
    assert words is None or any(words in cause for cause in found.causes), found.causes
    assert all(sum(d.drawn for d in part) > 0 for part in found.stages)


def blend_of(folder, spec, weights: dict[str, float], samples: int, name: str = "a1b2"):
    """A blend as Megatron-LM keeps it: whose sample each is, and beside it what it was made of."""
    stem = folder / f"{name}-BlendedDataset-train-"
    labels = [f"/elsewhere/{spec.path(n).rpartition('/')[2]}" for n in weights]
    parts = [{"dataset_path": label, "sequence_length": 512} for label in labels]
    described = json.dumps({"class": "BlendedDataset", "datasets": parts, "size": samples})
    (folder / f"{stem.name}description.txt").write_text(described)
    left = dealt_greedily(list(weights.values()), samples).astype(int)
    index = np.repeat(np.arange(len(left), dtype=np.int16), left)
    np.save(folder / f"{stem.name}dataset_index.npy", np.random.default_rng(0).permutation(index))
    return folder / f"{stem.name}dataset_index.npy"


NEMO = (
    "Training epoch 0, iteration 9/14 | lr: 1e-05 | global_step: 9 | consumed_samples: {0}\n"
    "Training epoch 0, iteration 10/14 | lr: 1e-05 | global_step: 10 | consumed_samples: {0}\n"
)
LOG = (
    "  seq_length ...................................... 512\n"
    " [2026-11-27 10:00:00] iteration     2500/    5000 | consumed samples:        40000 | ms\n"
    " [2026-11-27 11:00:00] iteration     5000/    5000 | consumed samples:        {} | ms\n"
)


@pytest.mark.parametrize("log", [LOG, NEMO])
def test_a_blend_of_megatron_is_counted_as_far_as_its_log_says(tmp_path, log):
    """Catches samples that were indexed and never consumed, prefixes told by their order, NeMo's
    own word for samples unread, and a phase whose index was forgotten.
    """
    weights = {"chat: short": 0.2, "web": 0.5, "code": 0.3}
    index = blend_of(tmp_path, FIXED, weights, 90_000)
    (tmp_path / "train.log").write_text(log.format(900_000))
    with pytest.raises(CuveeError, match=r"900,000 .*hold 90,000: give the index of every phase"):
        read_drawn_tokens([index, tmp_path / "train.log"], FIXED)
    (tmp_path / "train.log").write_text(log.format(80_000))
    counts = read_drawn_tokens([index, tmp_path / "train.log"], FIXED)
    assert sum(counts.points[-1].values()) == 80_000 * 512 == TOKENS
    assert compare_drawn(FIXED, counts).differences == () and len(counts.points) > 10
    whole = read_drawn_tokens([index], FIXED)
    assert sum(whole.points[-1].values()) == 90_000 * 512 and "no log says how far" in whole.said
    with pytest.raises(CuveeError, match="cannot read"):
        read_drawn_tokens([tmp_path], FIXED)
    (tmp_path / "a1b2-BlendedDataset-train-description.txt").unlink()
    with pytest.raises(CuveeError, match=r"a1b2-BlendedDataset-train-description.txt"):
        read_drawn_tokens([index], FIXED)


def test_phases_of_megatron_are_held_to_stages(tmp_path):
    """Catches phases that were started with each other's blend."""
    first = blend_of(tmp_path, STAGED, {"web": 0.6, "code": 0.3, "chat: short": 0.1}, 60_000, "1")
    second = blend_of(tmp_path, STAGED, {"web": 0.2, "code": 0.3, "chat: short": 0.5}, 20_000, "2")
    assert compare_drawn(STAGED, read_drawn_tokens([first, second], STAGED)).differences == ()
    found = compare_drawn(STAGED, read_drawn_tokens([second, first], STAGED))
    assert any("in the order 2, 1" in cause for cause in found.causes), found


def test_logs_that_count_are_read(tmp_path):
    """Catches lists of a restarted OLMo-core run added up, and torchtitan's restarts forgotten."""
    olmo = tmp_path / "olmo.log"
    listed = "".join(
        f"2026-11-27 host:0 INFO Selected {tokens} tokens from {name} at /d/{name}-{i}.npy\n"
        for name, tokens in (("web", 10_240_000), ("code", 6_144_000), ("chat: short", 4_096_000))
        for i in range(2)
    )
    torn = listed[: listed.index("Selected 6144000")]  # killed while it started anew
    olmo.write_text((listed + "INFO Total tokens in mixture: 40960000 (0.0%)\n") * 2 + torn)
    assert compare_drawn(FIXED, read_drawn_tokens([olmo], FIXED)).differences == ()
    (tmp_path / "torn.log").write_text(torn)
    with pytest.raises(CuveeError, match="has no end, the line `Total tokens in mixture`"):
        read_drawn_tokens([tmp_path / "torn.log"], FIXED)
    assert 'info(f"cuvee drew {counts}")' in BODY
    titan, lines = tmp_path / "titan.log", []
    for count in (1000, 2000, 3000, 1000, 2000):  # started anew after the third
        drew = {
            "study/web": count // 2,
            "study/code": count * 3 // 10,
            "study/chat: short": count // 5,
        }
        lines.append(f"\x1b[32m[titan] 2026 - root - INFO - cuvee drew {json.dumps(drew)}\x1b[0m\n")
    titan.write_text("".join(lines))
    counts = read_drawn_tokens([titan], FIXED)
    assert counts.points[-1] == pytest.approx({n: s * TOKENS for n, s in FIXED.shares.items()})
    assert compare_drawn(FIXED, counts).differences == () and "one rank" in counts.said
    with pytest.raises(CuveeError, match="count the same run twice"):
        read_drawn_tokens([titan, olmo], FIXED)


@pytest.mark.parametrize("tokens", [TOKENS, 0])
def test_the_sequences_of_a_rank_are_as_coarse_as_they_are_few(tmp_path, tokens):
    """Catches a whole sequence of 1,000 called a difference, and a run of unknown length that
    agrees whatever it drew.
    """
    few = dataclasses.replace(
        FIXED, tokens=tokens, stages=(type(FIXED.stages[0])((0.6875, 0.3, 0.0125, 0.0)),)
    )

    def held(*counts: int):
        names = [f"study/{name}" for name in NAMES]
        drew = json.dumps(dict(zip(names, counts, strict=True)))
        (tmp_path / "titan.log").write_text(f"INFO cuvee drew {drew}\n")
        return compare_drawn(few, read_drawn_tokens([tmp_path / "titan.log"], few))

    assert held(688, 300, 12, 0).differences == ()
    assert [d.name for d in held(600, 388, 12, 0).domains if d.off] == ["web", "code"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('cuvee drew {"study/web": "x"}\n', "a count is torn .a count is no whole number"),
        ('cuvee drew {"study/web": -5, "study/code": 9}\n', "no whole number"),
        (LOG.format(80_000), r"counts no tokens by domain \(40,960,000 in all\).*data-cache-path"),
        ("[batch=10/50]:\n\t Train time/token: 5242880\n", r"\(5,242,880 in all\).*a CSV"),
        ("[DEBUG] [axolotl] total_num_tokens: 40_960_000\n", r"\(40,960,000 in all\)"),
        ("nothing\n", r"run.log counts no tokens by domain: give what does"),
    ],
)
def test_a_log_that_counts_nothing_by_domain_says_what_does(tmp_path, text, words):
    """Catches a trainer's total taken for a count, and a refusal without a way on."""
    (tmp_path / "run.log").write_text(text)
    with pytest.raises(CuveeError, match=words):
        read_drawn_tokens([tmp_path / "run.log"], FIXED)


def test_tables_are_running_totals_of_ranks(tmp_path):
    """Catches ranks that replace each other, rows of a restart counted twice, and increments."""
    files, want = [], Counter()
    for rank in range(2):
        rows = ["step,domain,tokens"]
        for step in (10, 20, 20):  # the last once more, as after a restart
            for name, share in (("web", 0.5), ("code", 0.3), ("chat: short", 0.2)):
                rows.append(f"{step},{name},{share * step * 1_024_000:.0f}")
                want[name] += share * step * 1_024_000 if step == 10 else 0
        files.append(tmp_path / f"rank{rank}.csv")
        files[-1].write_text("\n".join(rows) + "\n")
    counts = read_drawn_tokens(files, FIXED)
    assert counts.points[-1] == pytest.approx({n: 2 * c for n, c in want.items()})
    assert compare_drawn(FIXED, counts).differences == () and len(counts.points) == 2


def test_every_path_of_a_domain_is_counted(tmp_path):
    """Catches a second path whose equal count is dropped, or whose other count is refused."""
    paths = {**FIXED.paths, "code": ("/data/c1.jsonl", "/data/c2.jsonl", "/data/c3.jsonl")}
    parts = dataclasses.replace(FIXED, paths=paths)
    rows = [("web", 20_480_000), ("chat: short", 8_192_000), ("/data/c1.jsonl", 6_144_000)]
    rows += [("/data/c2.jsonl", 3_072_000), ("/data/c3.jsonl", 3_072_000)]
    text = "".join(f"{label},{tokens}\n" for label, tokens in rows)
    (tmp_path / "counts.csv").write_text(f"domain,tokens\n{text}")
    counts = read_drawn_tokens([tmp_path / "counts.csv"], parts)
    assert counts.points[-1] == {"web": 20_480_000, "chat: short": 8_192_000, "code": 12_288_000}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("domain,tokens\nwbe,5\n", "unknown domain 'wbe'; did you mean 'web'"),
        ("domain,count\nweb,5\n", "needs the columns domain and tokens.*found domain, count"),
        ("domain,tokens\nweb,-5\n", "says no tokens"),
        ("domain,tokens\nweb,many\n", "says no tokens"),
        ("domain,tokens\nweb,5\nweb,6\n", "several numbers, for web"),
        ("step,domain,tokens\n1,web,5\n2,web,3\n", "count of web in .*falls: counts are running"),
        ("domain,tokens\nweb,0\n", "nothing was drawn"),
    ],
)
def test_a_table_that_is_wrong_is_named(tmp_path, rows, words):
    """Catches a row that is dropped, doubled or guessed."""
    (tmp_path / "counts.csv").write_text(rows)
    with pytest.raises(CuveeError, match=words):
        compare_drawn(FIXED, read_drawn_tokens([tmp_path / "counts.csv"], FIXED))


def test_a_share_below_a_sequence_is_not_lost_before_it_is_due():
    """Catches a domain called missing where the run has not come to its first sequence yet."""
    rare = dataclasses.replace(FIXED, stages=(type(FIXED.stages[0])((0.6999, 0.3, 0.0001, 0.0)),))
    begun = compare_drawn(rare, drawn((0.7, 0.3, 0, 0), 4_096_000))
    assert not any(d.off for d in begun.domains) and "ended early" in begun.differences[0]
    late = compare_drawn(rare, drawn((0.7, 0.3, 0, 0)))
    assert [d.name for d in late.domains if d.off] == ["unused"]
    assert "unused was not drawn at all" in late.causes[0]
