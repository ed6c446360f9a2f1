"""Tokenizes what is kept, a partition at a time, and joins the partitions to shards.

Within a domain and split, documents follow one another in the order of their keys, which is a
shuffle: a window's neighbors are not neighbors of a site.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from cuvee.proxies.data.shards import SPLITS, ShardWriter
from cuvee.proxies.data.tokenizer import STRETCH, DocumentEncoder
from cuvee.tasks.corpus.deduplicate_split import is_held, read_kept
from cuvee.tasks.corpus.read_parts import Entries, PartRecord
from cuvee.tasks.corpus.spooled_text import SpooledText
from cuvee.tasks.corpus.work_folder import WorkFolder

SAMPLE_DOCUMENT = 50_000  # characters of one document that the tokenizer sees at most
SAMPLE_GROUP = 64  # documents of the sample that are read together
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
    """

    domain: int
    split: str
    documents: int
    tokens: int
    extra: int


@dataclass(frozen=True)
class PartitionEncoder:
    """Tokenizes partitions; the same for all partitions of a corpus.

    A partition's tokens are three files, and the record of what is in them: the tokens, the lengths
    and bytes of documents (two integers each), and lines of JSON.

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

    spools: WorkFolder
    kept: WorkFolder
    segments: WorkFolder
    records: Sequence[PartRecord]
    held: bytes
    domains: int
    tokenizer: str
    eot: int

    def __call__(self, partition: int) -> list[Segment]:
        """Tokenize a partition, unless that was done."""
        done = self.segments.read(f"{partition}.json")
        if done is not None:
            return [Segment(**one) for one in json.loads(done)]
        encoder = warm_encoder(self.tokenizer)
        rows = read_kept(self.kept, partition)
        found: list[Segment] = []
        with (
            SpooledText(self.spools, self.records) as text,
            self.segments.create(f"{partition}.tokens") as tokens,
            self.segments.create(f"{partition}.documents") as documents,
            self.segments.create(f"{partition}.extras") as extras,
        ):
            for domain, split, own in split_rows(rows, self.held, self.domains):
                lengths: list[int] = []
                for data, counts in encoded_groups(text, own, encoder, self.eot):
                    tokens.write(data)
                    lengths += counts
                documents.write(np.stack([lengths, own["size"]], axis=1).astype("<u4").tobytes())
                lines = text.extras(own) if own["extra"].any() else []
                extras.writelines(lines)
                found.append(Segment(domain, split, len(own), sum(lengths), sum(map(len, lines))))
        body = [asdict(segment) for segment in found]
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

    A long document comes in parts that no token spans, where the encoder can tell such places.
    """
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
    segments: WorkFolder, found: Sequence[Sequence[Segment]], folders: Sequence[Path], width: int
) -> Iterator[dict[str, dict[str, Any]]]:
    """Writes each domain's shards from the segments of all partitions; what `ShardWriter` says.

    Args:
        segments: where the tokens of partitions lie.
        found: what is in each partition.
        folders: of each domain's shards.
        width: bytes of a token.
    """
    starts = [_starts(one, width) for one in found]
    for domain, folder in enumerate(folders):
        splits = {}
        for split in SPLITS:
            writer = ShardWriter(folder, split)
            for partition, places in enumerate(starts):
                if (domain, split) not in places:
                    continue
                segment, token, document = places[domain, split]
                with segments.open(f"{partition}.documents") as file:
                    file.seek(document)
                    lengths = np.frombuffer(file.read(8 * segment.documents), dtype="<u4")
                with segments.open(f"{partition}.tokens") as file:
                    file.seek(token)
                    left = segment.tokens * width
                    while left:
                        data = file.read(min(left, COPY))
                        writer.write(data)
                        left -= len(data)
                writer.end_documents(*lengths.reshape(-1, 2).T)
            splits[split] = writer.close()
        yield splits


def _starts(
    found: Sequence[Segment], width: int
) -> dict[tuple[int, str], tuple[Segment, int, int]]:
    """Each segment of a partition, and where its tokens and its documents start."""
    places, token, document = {}, 0, 0
    for segment in found:
        places[segment.domain, segment.split] = segment, token, document
        token += width * segment.tokens
        document += 8 * segment.documents
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
