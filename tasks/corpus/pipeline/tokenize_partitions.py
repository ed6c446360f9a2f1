"""Tokenizes what is kept, a partition at a time, and joins the partitions to shards.

Within a domain and split, documents follow one another in the order of their keys, which is a
shuffle: a window's neighbors are not neighbors of a site.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.shards import SPLITS, ShardWriter
from cuvee.proxies.data.token_views import SPANS, ViewMaker, view_record
from cuvee.proxies.data.tokenizer import STRETCH, DocumentEncoder
from cuvee.tasks.corpus.pipeline.deduplicate_split import is_held, read_kept
from cuvee.tasks.corpus.pipeline.document_attributes import CLUSTER, write_attributes
from cuvee.tasks.corpus.pipeline.read_parts import Entries, PartRecord
from cuvee.tasks.corpus.pipeline.spooled_text import SpooledText
from cuvee.tasks.corpus.pipeline.whole_files import file_sizes, finished_task, read_exactly

SAMPLE_DOCUMENT = 50_000  # characters of one document that the tokenizer sees at most
SAMPLE_GROUP = 64  # documents of the sample that are read together
DOCUMENT = 12  # bytes of what is written of a document: length, bytes, size of its cluster
COPY = 1 << 24  # bytes of tokens copied together


@dataclass(frozen=True)
class Segment:
    """The documents of a domain and split in one partition.

    Attributes:
        domain: its place among the domains.
        split: "train" or "valid".
        documents: how many.
        tokens: of all, ends included.
        extra: bytes of their lines of JSON.
        view: whether they are used where they lie: of tokens there are but the places (SPANS).
    """

    domain: int
    split: str
    documents: int
    tokens: int
    extra: int
    view: bool = False

    def stored(self, width: int) -> int:
        """Bytes that are written of the tokens, if each takes `width`."""
        return SPANS.itemsize * self.documents if self.view else width * self.tokens


@dataclass(frozen=True)
class PartitionEncoder:
    """Tokenizes partitions; the same for all partitions of a corpus.

    A partition's tokens are three files, and the record of what is in them: the tokens, the length,
    bytes and cluster's size of each document (`DOCUMENT`), and lines of JSON.

    Attributes:
        spools: where spools lie.
        kept: where the rows that stay lie.
        segments: where tokens go.
        records: of all parts, in order.
        held: keys of the documents held out, sorted.
        domains: how many there are.
        tokenizer: its tokenizer.json, whole.
        eot: id that ends a document.
    """

    spools: ObjectFolder
    kept: ObjectFolder
    segments: ObjectFolder
    records: Sequence[PartRecord]
    held: bytes
    domains: int
    tokenizer: str
    eot: int

    def __call__(self, partition: int) -> list[Segment]:
        """Tokenize a partition, unless that was done."""
        done = finished_task(self.segments, str(partition))
        if done is not None:
            return [Segment(**one) for one in done["segments"]]
        encoder = warm_encoder(self.tokenizer)
        rows = read_kept(self.kept, partition)
        found: list[Segment] = []
        with (
            SpooledText(self.spools, self.records) as text,
            self.segments.writing(f"{partition}.tokens") as tokens,
            self.segments.writing(f"{partition}.documents") as documents,
            self.segments.writing(f"{partition}.extras") as extras,
        ):
            for domain, split, own in split_rows(rows, self.held, self.domains):
                lengths: list[int] = []
                for data, counts in encoded_groups(text, own, encoder, self.eot):
                    tokens.write(data)
                    lengths += counts
                columns = np.stack([lengths, own["size"], own["cluster"]], axis=1)
                documents.write(columns.astype("<u4").tobytes())
                lines = [one or b"{}\n" for one in text.extras(own)] if own["extra"].any() else []
                extras.writelines(lines)
                extra, view = sum(map(len, lines)), text.viewed(own)
                found.append(Segment(domain, split, len(own), sum(lengths), extra, view))
        names = [f"{partition}.{end}" for end in ("tokens", "documents", "extras")]
        sizes = file_sizes(self.segments, names)
        body = {"files": sizes, "segments": [asdict(segment) for segment in found]}
        self.segments.write(f"{partition}.json", json.dumps(body).encode())
        return found


@lru_cache(maxsize=1)
def warm_encoder(tokenizer: str) -> DocumentEncoder:
    """The encoder of a tokenizer, which remembers pieces from one partition to the next."""
    return DocumentEncoder(Tokenizer.from_str(tokenizer))


def split_rows(rows: Entries, held: bytes, domains: int) -> Iterator[tuple[int, str, Entries]]:
    """The rows of each domain and split that has some, in the order of shards."""
    out = is_held(rows, held)
    ends = np.searchsorted(rows["domain"], np.arange(domains + 1)).tolist()
    for domain, (a, b) in enumerate(itertools.pairwise(ends)):
        for split in SPLITS:
            own = rows[a:b][out[a:b] == (split == "valid")]
            if len(own):
                yield domain, split, own


def encoded_groups(
    text: SpooledText, rows: Entries, encoder: DocumentEncoder, eot: int
) -> Iterator[tuple[bytes, list[int]]]:
    """Token ids as bytes, each document with its end, and the tokens of every document that ends.

    A long document comes in parts that no token spans, where the encoder can tell such places. Of
    documents whose tokens are used where they lie, come their places.
    """
    if text.viewed(rows):
        spans = text.spans(rows)
        yield spans.tobytes(), (spans["count"].astype(np.int64) + 1).tolist()
        return
    end = np.array([eot], dtype=encoder.type).tobytes()
    width = len(end)
    for group, texts in text.groups(rows):
        if texts:
            ids = encoder.encode([one.decode() for one in texts])
            yield end.join([*ids, b""]), [len(one) // width + 1 for one in ids]
            continue
        size, rest = 1, ""
        for piece in text.pieces(group[0]):
            *parts, rest = encoder.stretches(rest + piece, STRETCH)
            for data in encoder.encode(parts) if parts else ():
                size += len(data) // width
                yield data, []
        (data,) = encoder.encode([rest])
        yield data + end, [size + len(data) // width]


def join_segments(
    segments: ObjectFolder,
    found: Sequence[Sequence[Segment]],
    folders: Sequence[Path],
    views: ViewMaker,
    clusters: bool = False,
) -> Iterator[dict[str, dict[str, Any]]]:
    """Writes each domain's shards from the segments of all partitions; what `ShardWriter` says.

    Attributes of documents go beside them, where there are some. Of what is used where it lies, the
    places are written, and the tokens are read there once, to say what they are.

    Args:
        segments: where the tokens of partitions lie.
        found: what is in each partition.
        folders: of each domain's shards.
        views: makes views, and knows the corpus's tokens.
        clusters: whether the size of each document's cluster is an attribute.
    """
    width = views.kind.itemsize
    starts = [_starts(one, width) for one in found]
    for domain, folder in enumerate(folders):
        splits = {}
        for split in SPLITS:
            own = [(i, *places[domain, split]) for i, places in enumerate(starts)
                   if (domain, split) in places]  # fmt: skip
            viewed = any(segment.view for _, segment, *_ in own)
            writer = ShardWriter(folder, split, keep=not viewed)
            for partition, segment, _, document, _ in own:
                columns = _read_documents(segments, partition, segment, document)
                writer.end_documents(*columns[:2])
            stored = (
                data
                for partition, segment, token, *_ in own
                for data in _read_tokens(segments, partition, token, segment.stored(width))
            )
            view = views.write(folder / f"{split}.spans", stored) if viewed else None
            for data in view.blocks(COPY) if view else stored:
                writer.write(data)
            splits[split] = writer.close()
            if view:
                splits[split]["view"] = view_record(f"{split}.spans", view)
            splits[split]["files"] |= write_attributes(
                folder / f"{split}.attributes.parquet",
                partial(_attributes, segments, own, clusters),
            )
        yield splits


def _read_tokens(segments: ObjectFolder, partition: int, start: int, size: int) -> Iterator[bytes]:
    """Tokens of a segment, some at a time."""
    name = f"{partition}.tokens"
    with segments.open(name) as file:
        file.seek(start)
        for done in range(0, size, COPY):
            yield read_exactly(file, min(COPY, size - done), segments.path(name))


def _read_documents(
    segments: ObjectFolder, partition: int, segment: Segment, start: int
) -> NDArray[np.uint32]:
    """Length, bytes and cluster's size of a segment's documents, (3, n)."""
    name = f"{partition}.documents"
    with segments.open(name) as file:
        file.seek(start)
        raw = read_exactly(file, DOCUMENT * segment.documents, segments.path(name))
        return np.frombuffer(raw, dtype="<u4").reshape(-1, 3).T


def _attributes(
    segments: ObjectFolder, own: Sequence[tuple[int, Segment, int, int, int]], clusters: bool
) -> Iterator[list[dict[str, Any]]]:
    """Rows of attributes of a domain and split, a segment at a time."""
    any_extra = any(segment.extra for _, segment, *_ in own)
    for partition, segment, _, document, extra in own if any_extra or clusters else ():
        rows: list[dict[str, Any]] = [{} for _ in range(segment.documents)]
        if segment.extra:
            name = f"{partition}.extras"
            with segments.open(name) as file:
                file.seek(extra)
                raw = read_exactly(file, segment.extra, segments.path(name))
                rows = [json.loads(line) for line in raw.splitlines()]
        if clusters:
            sizes = _read_documents(segments, partition, segment, document)[2].tolist()
            rows = [{CLUSTER: size} | row for size, row in zip(sizes, rows, strict=True)]
        yield rows


def _starts(
    found: Sequence[Segment], width: int
) -> dict[tuple[int, str], tuple[Segment, int, int, int]]:
    """Each segment of a partition, and where its tokens, documents and attributes start."""
    places, token, document, extra = {}, 0, 0, 0
    for segment in found:
        places[segment.domain, segment.split] = segment, token, document, extra
        token += segment.stored(width)
        document += DOCUMENT * segment.documents
        extra += segment.extra
    return places


def tokenizer_sample(
    text: SpooledText, kept: Iterable[Entries], held: bytes, domains: int, most: int
) -> Iterator[str]:
    """Training documents for the tokenizer: those with the largest keys, the longest cut short.

    Args:
        text: reads documents.
        kept: the rows that stay, a partition at a time, those with the largest keys first.
        held: keys of the documents held out, sorted.
        domains: how many there are.
        most: bytes of each domain, about.
    """
    size = [0] * domains
    for rows in kept:
        for domain, split, own in split_rows(rows, held, domains):
            if split == "valid" or size[domain] >= most:
                continue
            cut = np.minimum(own["size"], SAMPLE_DOCUMENT)[::-1]
            before = np.concatenate([[0], np.cumsum(cut)[:-1]])
            chosen = own[::-1][before < most - size[domain]]
            size[domain] += int(cut[: len(chosen)].sum())
            for i in range(0, len(chosen), SAMPLE_GROUP):
                for start in text.texts(chosen[i : i + SAMPLE_GROUP], 4 * SAMPLE_DOCUMENT):
                    yield start.decode("utf-8", "ignore")[:SAMPLE_DOCUMENT]
        if all(one >= most for one in size):
            return


def small_domains(
    text: SpooledText,
    kept: Iterable[Entries],
    small: Sequence[int],
    held: bytes,
    encoder: DocumentEncoder,
    least: int,
) -> dict[int, tuple[int, int, int]]:
    """Training tokens, documents and bytes of small domains; no more is read than is needed.

    Args:
        text: reads documents.
        kept: the rows that stay, a partition at a time.
        small: the domains that are counted.
        held: keys of the documents held out, sorted.
        encoder: of the corpus's tokenizer.
        least: tokens from which it does not matter how many there are.
    """
    found = dict.fromkeys(small, (0, 0, 0))
    for rows in kept:
        for domain, split, own in split_rows(rows, held, int(rows["domain"].max(initial=0)) + 1):
            if split == "valid" or found.get(domain, (least,))[0] >= least:
                continue
            tokens, documents, size = found[domain]
            for i in range(0, len(own), SAMPLE_GROUP):
                group = own[i : i + SAMPLE_GROUP]
                for _, counts in encoded_groups(text, group, encoder, 0):
                    tokens += sum(counts)
                documents, size = documents + len(group), size + int(group["size"].sum())
                if tokens >= least:
                    break
            found[domain] = tokens, documents, size
    return found
