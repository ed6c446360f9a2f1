"""What text is known by: contents alone, whatever the order, the workers, or what else there is."""

import hashlib
import json
import os
import random
import re
import shutil
import sys
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import corpus_texts
import numpy as np
import pytest
from corpus_texts import SMALL, Texts, document, files, texts

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.shards import SPLITS
from cuvee.proxies.data.sources.documents import ReadPart, TextDocument
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.corpus_state import StateStore
from cuvee.tasks.corpus.find_document import find_documents
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool
from cuvee.tasks.corpus.prepare import prepare_corpus
from cuvee.tasks.corpus.tolerated_growth import document_hashes
from cuvee.tasks.store.results import Store

SHARED = tuple(document(i) for i in range(8))

NO_VIEWS = {"train": {}, "valid": {}}


def study(folder, name="study", **changes):
    return StateStore(Store(str(folder / "store")), name, folder / "tokenizers", **changes)


def domains(**more):
    """Three domains of which two share documents, the larger one first."""
    given = {
        "weather": Texts((*SHARED, *(document(100 + i) for i in range(60)))),
        "kitchen": Texts((*(document(1000 + i, 30) for i in range(40)), *SHARED)),
        "garden": Texts(tuple(document(2000 + i, 50) for i in range(50))),
    }
    return given | more


def known(corpus):
    return {one.name: (one.identity, one.heldout) for one in corpus.domains}


def make(given, folder, out="corpora", **changes):
    changes = {"benchmarks": {}, "settings": SMALL, "states": study(folder)} | changes
    return prepare_corpus(given, folder / out, **changes)


def test_the_same_state_gives_the_same_bytes_from_nothing(tmp_path):
    """Catches a split, a tokenizer or a choice of copies that depends on what lies on the disk; and
    a corpus that is made twice because its study now has a state."""
    first = make(domains(), tmp_path)
    more = tuple(document(5000 + i) for i in range(30))
    grown = domains(weather=Texts((*domains()["weather"].texts, *more)))
    second = make(grown, tmp_path)
    whole = files(second.root)
    assert known(second) != known(first)
    shutil.rmtree(tmp_path / "corpora")
    shutil.rmtree(tmp_path / "tokenizers")
    again = make(grown, tmp_path)
    assert files(again.root) == whole
    said = []
    make(grown, tmp_path, progress=lambda words, _: said.append(words))
    assert len(said) == 1 and said[0].startswith("the corpus is in")


def test_a_domain_that_grows_changes_nothing_but_itself(tmp_path):
    """22 bytes, then a lot. Catches a vocabulary, a held-out set or a copy that moves with them."""
    before = known(make(domains(), tmp_path))
    *rest, last = domains()["weather"].texts
    grown = Texts((*rest, last + " and 22 bytes of rain."))
    after = known(make(domains(weather=grown), tmp_path))
    assert {name for name in before if before[name] != after[name]} == {"weather"}
    held = set(texts(make(domains(), tmp_path), "weather", "valid"))
    assert last not in held and before["weather"][1] == after["weather"][1]
    much = tuple(document(9000 + i) for i in range(50))
    larger = make(domains(weather=Texts((*domains()["weather"].texts, *much))), tmp_path)
    now = known(larger)
    assert {name for name in before if before[name] != now[name]} == {"weather"}
    assert now["weather"][1] == before["weather"][1]
    assert held == set(texts(larger, "weather", "valid"))
    most = tuple(document(9000 + i) for i in range(400))  # now there is too little held out
    largest = make(domains(weather=Texts((*domains()["weather"].texts, *most))), tmp_path)
    assert held < set(texts(largest, "weather", "valid"))
    assert {name for name in before if before[name] != known(largest)[name]} == {"weather"}


def test_names_order_and_new_domains_keep_all_identities(tmp_path):
    """Catches names, or places among the others, in an identity; a copy of a doubled document that
    goes to a domain which is new; and a tokenizer that is trained anew for it."""
    before = known(make(domains(), tmp_path))
    given = domains()
    turned = dict(reversed(given.items()))
    assert known(make(turned, tmp_path)) == before
    renamed = {{"weather": "climate"}.get(name, name): source for name, source in given.items()}
    after = known(make(renamed, tmp_path))
    assert after == {{"weather": "climate"}.get(name, name): one for name, one in before.items()}
    small = Texts((*SHARED, *(document(7000 + i, 20) for i in range(12))))  # the smallest
    added = make({"cellar": small, **given}, tmp_path)
    assert {name: one for name, one in known(added).items() if name != "cellar"} == before
    counts = {entry["name"]: entry["counts"] for entry in added.manifest["domains"]}
    assert counts["cellar"]["duplicates_elsewhere"] == len(SHARED)
    other = make({"cellar": small, **given}, tmp_path, states=study(tmp_path, "another"))
    counts = {entry["name"]: entry["counts"] for entry in other.manifest["domains"]}
    assert counts["cellar"]["duplicates_elsewhere"] == 0


def test_a_rename_a_swap_and_the_way_back_read_nothing(tmp_path):
    """Catches names or an order in what a corpus is found by; a corpus, a sentence or the study's
    state that keeps the names that it was prepared under; and shards under the wrong name."""
    log, given = tmp_path / "log", parted(tmp_path / "log")
    first = make(given, tmp_path)
    read, before = log.read_text(), known(first)
    names = {"weather": "kitchen", "garden": "plot", "kitchen": "weather"}
    after = make({names[name]: given[name] for name in names}, tmp_path)
    assert log.read_text() == read and after.root == first.root
    assert known(after) == {names[name]: one for name, one in before.items()}
    assert [entry["name"] for entry in after.manifest["domains"]] == list(names.values())
    for name, other in names.items():
        for split in SPLITS:
            assert texts(after, other, split) == texts(first, name, split)
    said = [{e["name"]: e["notices"] for e in one.manifest["domains"]} for one in (first, after)]
    assert said[0]["kitchen"] == [] and said[1]["weather"] == []
    assert said[0]["weather"] == [
        "8 of 68 documents of weather are also in kitchen, and count there"
    ]
    assert said[1]["kitchen"] == [
        "8 of 68 documents of kitchen are also in weather, and count there"
    ]
    ranks = {one.source: one.name for one in study(tmp_path).load(SMALL).ranks}
    assert ranks == {source.identity: names[name] for name, source in given.items()}
    assert known(make(given, tmp_path)) == before and log.read_text() == read
    turned = dict(reversed(given.items()))
    assert list(known(make(turned, tmp_path))) == list(turned) and log.read_text() == read


def test_a_document_that_was_held_out_stays_so_wherever_it_turns_up(tmp_path):
    """Catches held-out text of one domain that another one trains on later."""
    first = make(domains(), tmp_path)
    held = texts(first, "garden", "valid")
    left = {name: source for name, source in domains().items() if name != "garden"}
    other = Texts((*held, *(document(8000 + i) for i in range(30))))
    later = make({**left, "orchard": other}, tmp_path)
    assert set(held) <= set(texts(later, "orchard", "valid"))


def test_a_study_that_is_only_planned_keeps_its_state(tmp_path):
    """Catches a held-out set, a tokenizer or an owner of doubled text that a plan decides, for all
    recipes of a name; and a run that reads again what its plan has read."""
    seen = make(parted(tmp_path / "log"), tmp_path, states=study(tmp_path, planned=True))
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    read = (tmp_path / "log").read_text()
    assert make(parted(tmp_path / "log"), tmp_path).root == seen.root
    assert (tmp_path / "log").read_text() == read
    kept = files(tmp_path / "store")
    small = Texts((*SHARED, *(document(7000 + i, 20) for i in range(12))))
    make({**domains(), "cellar": small}, tmp_path, states=study(tmp_path, planned=True))
    assert files(tmp_path / "store") == kept


def test_another_tokenizer_is_trained_only_when_it_is_asked_for(tmp_path):
    """Catches a vocabulary that drifts with the text, and a flag without effect."""
    one = make(domains(), tmp_path)
    strange = Texts(tuple(f"{i:04d} " * 60 for i in range(60)))
    two = make(domains(numbers=strange), tmp_path)
    assert two.manifest["tokenizer"] == one.manifest["tokenizer"]
    three = make(domains(numbers=strange), tmp_path,
                 states=study(tmp_path, new_tokenizer=True))  # fmt: skip
    assert three.manifest["tokenizer"] != one.manifest["tokenizer"]
    assert make(domains(numbers=strange), tmp_path).root == three.root
    (tmp_path / "store" / "tokenizers" / three.manifest["tokenizer"]).write_text("{}")
    shutil.rmtree(tmp_path / "tokenizers", ignore_errors=True)
    with pytest.raises(CorruptError, match="not what was kept"):
        make(domains(), tmp_path)


def test_what_a_study_holds_out_must_be_what_was_kept(tmp_path):
    """Catches a held-out set that is drawn anew, in silence, where its keys are lost."""
    make(domains(), tmp_path)
    (keys,) = (tmp_path / "store" / "heldout").iterdir()
    keys.write_bytes(keys.read_bytes()[:-16])
    with pytest.raises(CorruptError, match="says what study study holds out"):
        make({**domains(), "more": Texts(tuple(document(i) for i in range(400, 440)))}, tmp_path)


def test_what_the_store_lost_is_found_in_a_prepared_corpus(tmp_path):
    """Catches a study that ends, or holds out other text, though a corpus has what it needs."""
    before = known(make(domains(), tmp_path))
    kept = files(tmp_path / "store")
    for folder in ("store/heldout", "store/tokenizers", "tokenizers"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    more = Texts(tuple(document(i) for i in range(400, 440)))
    after = make({**domains(), "more": more}, tmp_path)
    assert {name: one for name, one in known(after).items() if name != "more"} == before
    assert {n: d for n, d in files(tmp_path / "store").items() if n.startswith("tok")} == {
        n: d for n, d in kept.items() if n.startswith("tok")
    }


def test_memory_for_a_domain_that_grew_does_not_follow_its_documents(tmp_path):
    """Catches a number, or an object, that is kept in memory for each document."""
    peaks, count = [], 40_000
    for folder, part in (("few", count // 3), ("many", count)):
        place = tmp_path / folder
        place.mkdir()
        for split in ("train", "valid"):
            np.arange(part, dtype=np.uint32).tofile(place / f"{split}.bin")
            np.savez(place / f"{split}.idx.npz", offsets=np.arange(part + 1), bytes=np.ones(part))
        tracemalloc.start()
        hashes = document_hashes(place, NO_VIEWS, np.uint32, tmp_path / f"{folder}.hashes")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(hashes) == 2 * part and len(np.unique(hashes)) == part
    assert peaks[1] - peaks[0] < count  # not a byte a document


def test_a_domain_that_grew_by_little_keeps_its_shards_if_that_is_asked_for(tmp_path):
    """Catches an identity that stays while the text changes, growth that adds up unseen in small
    steps, and text that was removed and yet stays in use."""
    mild = CorpusSettings(**{**vars(SMALL), "tolerance": 0.1})
    before = make(domains(), tmp_path, settings=mild)
    whole = {name: one for name, one in files(before.root).items() if name.startswith("weather")}
    old = domains()["weather"].texts
    grown = [Texts((*old, *(document(9000 + i) for i in range(count)))) for count in (3, 30)]
    first = make(domains(weather=grown[0]), tmp_path, settings=mild)
    assert known(first) == known(before)
    assert {n: d for n, d in files(first.root).items() if n.startswith("weather")} == whole
    (entry,) = (one for one in first.manifest["domains"] if one["name"] == "weather")
    assert re.search(r"weather has grown by \d\.\d%.*less than .*10\.0%", entry["notices"][-1])
    assert make(domains(weather=grown[0]), tmp_path, settings=mild).root == first.root
    much = make(domains(weather=grown[1]), tmp_path, settings=mild)
    assert known(much)["weather"] != known(before)["weather"]
    swapped = Texts((*grown[1].texts[:20], *grown[1].texts[21:], document(9999), document(9998)))
    other = make(domains(weather=swapped), tmp_path, settings=mild)
    assert known(other)["weather"] != known(much)["weather"]
    strict = make(domains(weather=grown[0]), tmp_path)
    assert known(strict)["weather"] != known(before)["weather"]
    assert document(9000) in texts(strict, "weather", "train") + texts(strict, "weather", "valid")


def test_it_is_said_that_earlier_shards_of_a_domain_are_gone(tmp_path):
    """Catches a tolerance that is passed over in silence once prepared corpora were removed."""
    mild = CorpusSettings(**{**vars(SMALL), "tolerance": 0.1})
    before = make(domains(), tmp_path, settings=mild)
    shutil.rmtree(before.root)
    grown = Texts((*domains()["weather"].texts, document(9000)))
    after = make(domains(weather=grown), tmp_path, settings=mild)
    said = {one["name"]: " ".join(one["notices"]) for one in after.manifest["domains"]}
    assert "earlier runs of it do not count" in said["weather"]
    assert "do not count" not in said["garden"] + said["kitchen"]
    assert known(after)["weather"] != known(before)["weather"]


def test_a_document_is_found_by_its_words_and_by_its_id(tmp_path):
    """Catches words that are missed because tokens depend on what stands around them, words that
    are found where they do not stand, and a document whose id alone is known."""
    rows = [{"text": document(300 + i), "key": f"row-{i}"} for i in range(30)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    corpus = make({**domains(), "rows": Files(str(path), id="key")}, tmp_path)
    for text in (domains()["garden"].texts[7], rows[4]["text"], SHARED[3]):
        for part in (text, text[5:60], text.split()[-1]):
            places = list(find_documents(corpus, part))
            held = [texts(corpus, one.domain, one.split)[one.number] for one in places]
            assert text in held and all(part in one for one in held)
    (place,) = find_documents(corpus, "row-11")
    assert texts(corpus, place.domain, place.split)[place.number] == rows[11]["text"]
    assert place.id == "row-11" and place.domain == "rows"
    assert list(find_documents(corpus, "river stone never stands before zebra")) == []


@dataclass(frozen=True)
class Parted:
    """Documents in several parts, each of which says that it was read."""

    texts: tuple[str, ...]
    log: Path
    harm: str = ""

    reading = "parted"

    @property
    def identity(self) -> str:
        """Hash of the documents."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()

    def parts(self):
        """Ten documents each."""
        return tuple(
            ReadPart("memory", i, i + 10, 10, self.identity) for i in range(0, len(self.texts), 10)
        )

    def read(self, part):
        """The documents of a part, or what is to happen in its middle."""
        with self.log.open("a") as file:
            file.write(f"{part.start}\n")
        yield from map(TextDocument, self.texts[part.start : part.stop - 5])
        if part.start == 30 and self.harm:
            mark = self.log.with_suffix(".harmed")
            if not mark.exists():
                mark.touch()
                if self.harm == "die":
                    os._exit(1)
                raise KeyboardInterrupt
        yield from map(TextDocument, self.texts[part.stop - 5 : part.stop])


def parted(log, harm=""):
    """As `domains`, in parts; harm comes to the one that is read last."""
    given = {name: Parted(one.texts, log) for name, one in domains().items()}
    last = max(given, key=lambda name: given[name].identity)
    return given | {last: replace(given[last], harm=harm)}


class ShuffledPool(InlinePool):
    """Runs tasks in any order."""

    def __init__(self, seed):
        self.seed = seed

    def map(self, work, items):
        order = random.Random(self.seed).sample(range(len(items)), len(items))
        for i in order:
            yield i, work(items[i])


def test_no_order_of_tasks_and_no_partition_changes_a_byte(tmp_path, monkeypatch):
    """Catches a result that is taken for its neighbor's, and a shuffle that depends on when a
    part was read or on how many partitions there are."""
    whole = make(parted(tmp_path / "log"), tmp_path / "a")
    monkeypatch.setattr("cuvee.tasks.corpus.pipeline.deduplicate_split.PARTITION", 2500)
    monkeypatch.setattr("cuvee.tasks.corpus.pipeline.read_parts.RUN", 900)
    for seed in (1, 2):
        other = make(parted(tmp_path / "log"), tmp_path / f"{seed}", pool=ShuffledPool(seed))
        assert files(other.root) == files(whole.root)


def test_a_preparation_that_was_stopped_goes_on_where_it_was(tmp_path):
    """Catches parts that are read once more, and half a part that counts as read."""
    whole = make(parted(tmp_path / "whole"), tmp_path / "a")
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        make(parted(log, "stop"), tmp_path / "b")
    before = log.read_text().split()
    assert before[-1] == "30" and len(before) > 10
    again = make(parted(log, "stop"), tmp_path / "b")
    after = log.read_text().split()[len(before) :]
    (last,) = (one for one in parted(log, "stop").values() if one.harm)
    assert after == [str(part.start) for part in last.parts()][3:]
    assert files(again.root) == files(whole.root)
    left = [path.name for path in (tmp_path / "b" / "corpora").iterdir() if path.is_dir()]
    assert left == [again.root.name]


def test_a_change_in_one_file_reads_no_other_again(tmp_path, monkeypatch):
    """After a stop: catches spools that are named by the whole domain."""
    for i in range(3):
        rows = [json.dumps({"text": document(100 * i + j)}) for j in range(30)]
        (tmp_path / f"{i}.jsonl").write_text("\n".join(rows))
    read = []
    plain = Files.read

    def logged(self, part):
        read.append(Path(part.url).name)
        if len(read) == 3:
            raise KeyboardInterrupt
        return plain(self, part)

    monkeypatch.setattr(Files, "read", logged)
    given = {"all": Files(str(tmp_path / "?.jsonl")), "kitchen": domains()["kitchen"]}
    with pytest.raises(KeyboardInterrupt):
        make(given, tmp_path)
    (tmp_path / "2.jsonl").write_text(json.dumps({"text": "other"}))
    given["all"] = Files(str(tmp_path / "?.jsonl"))
    make(given, tmp_path)
    assert read == ["0.jsonl", "1.jsonl", "2.jsonl", "2.jsonl"]


class OtherMachine(InlinePool):
    """Workers that share an object store alone: where the text lies, they have none, or another."""

    def __init__(self, shared, text, theirs):
        self.shared, self.text, self.theirs = shared, text, theirs

    def map(self, work, items):
        for i, item in enumerate(items):
            self.text.rename(self.text.with_name("ours"))
            if self.theirs:
                shutil.copytree(self.theirs, self.text)
            found = work(item)
            shutil.rmtree(self.text, ignore_errors=True)
            self.text.with_name("ours").rename(self.text)
            yield i, found


def test_text_of_one_machine_is_read_where_it_lies(tmp_path, s3):
    """Catches a worker that looks for a file on its own disk, and one that takes what it finds
    there for the text: a run of the corpus's identity on text that nobody named."""
    for folder, seed in (("text", 5000), ("theirs", 7000)):
        (tmp_path / folder).mkdir()
        rows = [json.dumps({"text": document(seed + i)}) for i in range(60)]
        (tmp_path / folder / "rows.jsonl").write_text("\n".join(rows))
    given = {**domains(), "rows": Files(str(tmp_path / "text"))}
    whole = make(given, tmp_path / "a")
    for name, theirs in (("b", None), ("c", tmp_path / "theirs")):
        pool = OtherMachine(f"{s3}/{name}", tmp_path / "text", theirs)
        again = {**domains(), "rows": Files(str(tmp_path / "text"))}
        assert files(make(again, tmp_path / name, pool=pool).root) == files(whole.root)


def test_a_file_that_fails_on_its_way_to_a_store_leaves_nothing_and_tells_why(s3):
    """Catches half of a file that appears under its name, and an error of the store's client in
    the place of what went wrong."""
    folder = ObjectFolder(f"{s3}/work")
    for size in (10, 12_000_000):  # in one request, in parts
        with pytest.raises(DataError, match="what went wrong"), folder.writing("half") as file:
            file.write(b"x" * size)
            raise DataError("what went wrong")
        assert folder.size("half") is None
    folder.write("whole", b"x")
    assert folder.read("whole") == b"x"


@pytest.mark.slow
def test_workers_of_ray_give_the_same_bytes_though_one_of_them_dies(tmp_path, ray_cluster):
    """Catches workers that need what only the driver has, and a part that is lost or counted twice
    with the worker that read it."""
    from ray import cloudpickle

    from cuvee.flows.execution.ray_pool import RayPool

    for module in (corpus_texts, sys.modules[__name__]):  # which workers cannot import
        cloudpickle.register_pickle_by_value(module)
    whole = make(parted(tmp_path / "whole"), tmp_path / "a")
    pool = RayPool(lambda: None)
    assert pool.workers == 2
    other = make(parted(tmp_path / "log", "die"), tmp_path / "b", pool=pool)
    assert (tmp_path / "log.harmed").exists()
    assert files(other.root) == files(whole.root)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": null}\n')
    with pytest.raises(DataError, match="broken.jsonl, line 2: field 'text' is null"):
        make({**domains(), "broken": Files(str(broken))}, tmp_path / "c", pool=pool)
