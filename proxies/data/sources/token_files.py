"""Token files as a source of documents: decoded, so that they are compared and held out like text.

A document's tokens become its text again, by the tokenizer that made them, which costs about as
much as encoding does. Files of the corpus's own tokenizer are used where they lie (`view`): their
documents are dropped or held out whole, and nothing of them is encoded or written. Special tokens
at a document's ends are left out, and one end-of-text token follows it; those within it stay. Text
of another tokenizer is cleaned and encoded as all text is.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cuvee.mixtures.errors import CorruptError, CuveeError, DataError
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.sources.documents import (
    Document,
    ReadPart,
    TextDocument,
    TokenSpan,
    UnusableDocument,
)
from cuvee.proxies.data.sources.source_files import (
    TOKENS,
    ListingProgress,
    StoredFile,
    changed_sentence,
    file_state,
    is_url,
    local_path,
)
from cuvee.proxies.data.sources.text_files import SPLIT, Files, Found
from cuvee.proxies.data.sources.token_layouts import LAYOUTS, Array, TokenLayout
from cuvee.proxies.data.tokenizer import (
    TokenizerFile,
    end_of_text,
    load_tokenizer,
    vocabulary_size,
)

BATCH = 1 << 20  # tokens that are decoded together
LOST = "\ufffd"  # what a decoder writes for bytes that are no character


@dataclass(frozen=True)
class TokenFiles:
    """Documents in token files of one format.

    Attributes:
        path: a file, a folder, a glob, or several; paths or URLs.
        format: of `LAYOUTS`.
        tokenizer: that made the files.
        skip: whether documents that are no text are yielded as unusable, not refused.
        digest: of a file's bytes; one that remembers makes `identity` cheap.
        part_bytes: of a file that are read together.
        view: whether tokens are used where they lie, since they are the corpus's own.
    """

    path: tuple[str, ...]
    format: str
    tokenizer: TokenizerFile
    skip: bool = False
    digest: Callable[[Path], str] = file_digest
    part_bytes: int = SPLIT
    view: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """With the tokenizer's definition, which workers on other machines have no file of."""
        lean = {key: self.__dict__[key] for key in self.__dataclass_fields__}
        return {**lean, "digest": file_digest, "definition": self.definition}

    @cached_property
    def definition(self) -> str:
        """The tokenizer, whole."""
        return load_tokenizer(self.tokenizer.path, self.tokenizer.end_of_text).to_str()

    @cached_property
    def _loaded(self) -> Tokenizer:
        return Tokenizer.from_str(self.definition)

    @cached_property
    def _listed(self) -> Files:
        return Files(
            self.path,
            glob=(f"*{TOKENS[self.format]}",),
            named=True,
            format="text",
            digest=self.digest,
        )

    def list_files(self, progress: ListingProgress = lambda count: None) -> Found:
        """The files with tokens, as `Files.list_files` has them."""
        return self._listed.list_files(progress)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files with tokens, each once; raises what `Files.list_files` does."""
        return self._listed.files

    @property
    def notice(self) -> str:
        """What is passed over, in a sentence: nothing that is not seen."""
        return ""

    @property
    def most_tokens(self) -> float:
        """More tokens than this cannot be in the files."""
        return float(sum(file.size for file in self.files))

    @property
    def reading(self) -> str:
        """How tokens are read, whichever they are."""
        maker = hashlib.sha256(self.definition.encode()).hexdigest()
        how = [self.format, maker, self.tokenizer.end_of_text, self.skip]
        return json.dumps([*how, *(["view"] if self.view else [])])

    @property
    def identity(self) -> str:
        """Hash of the files' content in their order, and of how they are read."""
        parts = [self._content(file) for file in self.files]
        return hashlib.sha256(json.dumps([self.reading, parts]).encode()).hexdigest()

    def layout(self, url: str) -> TokenLayout:
        """A file, and where its documents lie."""
        tokenizer = self._loaded
        end = end_of_text(tokenizer, self.tokenizer.end_of_text)
        return LAYOUTS[self.format](url, vocabulary_size(tokenizer), end)

    def _content(self, file: StoredFile) -> str:
        """What a file and those beside it hold.

        Raises:
            DataError: one is missing or cannot be read.
        """
        beside = [StoredFile(url) for url in self.layout(file.url).beside]
        found = []
        for one in (file, *beside):
            try:
                own = file_state(one.url) if is_url(one.url) else self.digest(local_path(one.url))
            except OSError as error:
                raise DataError(f"{one.url} cannot be read: {error.strerror or error}") from error
            found.append(own)
        return "+".join(found)

    def parts(self) -> tuple[ReadPart, ...]:
        """The files, large ones in parts of about `part_bytes` bytes of whole documents.

        Raises:
            DataError: a file that cannot be read.
            CorruptError: a file that is not what its index says.
        """
        return tuple(
            ReadPart(file.url, start, stop, size, content)
            for file in self.files
            for content in [self._content(file)]
            for start, stop, size in self.layout(file.url).ranges(self.part_bytes)
        )

    def documents(self) -> Iterator[Document]:
        """The documents of all files; raises what `read` does."""
        for part in self.parts():
            yield from self.read(part)

    def read(self, part: ReadPart) -> Iterator[Document]:
        """The documents of a part, decoded.

        Raises:
            DataError: an id above the vocabulary, or a document that is no text; a file that
                changes meanwhile. Names file and document.
            CorruptError: a file that breaks off, or is not what its index says.
        """
        layout = self.layout(part.url)
        watched = (part.url, *layout.beside)
        before = [file_state(url) for url in watched]
        try:
            yield from self._decoded(part, layout)
        except CuveeError:
            if [file_state(url) for url in watched] != before:
                raise DataError(changed_sentence(part.url)) from None
            raise
        if [file_state(url) for url in watched] != before:
            raise DataError(changed_sentence(part.url))

    def _decoded(self, part: ReadPart, layout: TokenLayout) -> Iterator[Document]:
        name = part.url.rpartition("/")[2]
        batch: list[tuple[str, int, Array]] = []
        size = 0
        for number, place, ids in layout.documents(part.start, part.stop):
            batch.append((f"{name}:{number}", place, ids))
            size += len(ids)
            if size >= BATCH:
                yield from self._texts(part.url, batch)
                batch, size = [], 0
        yield from self._texts(part.url, batch)

    def _texts(self, url: str, batch: list[tuple[str, int, Array]]) -> Iterator[Document]:
        """Documents of ids, whose special tokens are no text."""
        tokenizer, highest = self._loaded, vocabulary_size(self._loaded) - 1
        for name, _, ids in batch:
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= highest:
                wrong = int(ids.max()) if int(ids.max()) > highest else int(ids.min())
                raise DataError(
                    f"{url}: document {name} has the id {wrong:,}, and the ids of its tokenizer "
                    f"({self.tokenizer.path}) go to {highest:,}: it was made by another, or its "
                    "ids are of another size or byte order"
                )
        texts = tokenizer.decode_batch([ids.tolist() for *_, ids in batch])
        for (name, place, ids), text in zip(batch, texts, strict=True):
            if LOST in text and not self._same(text, ids):
                why = (
                    f"{url}: document {name} is no text: some of its tokens are parts of characters"
                )
                if not self.skip:
                    raise DataError(f"{why}. `corpus: {{on_error: skip}}` leaves such out")
                yield UnusableDocument(why)
            else:
                yield TextDocument(text, name, tokens=self._span(url, name, place, ids))

    def _same(self, text: str, ids: Array) -> bool:
        """Whether a text that holds the sign for lost bytes holds it by right."""
        again = self._loaded.encode(text, add_special_tokens=False).ids
        return again == list(itertools.filterfalse(self._special.__contains__, ids.tolist()))

    @cached_property
    def _special(self) -> frozenset[int]:
        """Ids that are no text."""
        added = self._loaded.get_added_tokens_decoder().items()
        return frozenset(i for i, token in added if token.special)

    def _span(self, url: str, name: str, place: int, ids: Array) -> TokenSpan | None:
        """Where a document's own ids lie, without the special ones at its ends."""
        if not self.view:
            return None
        if place < 0 and len(ids):
            raise CorruptError(
                f"{url}: the sequences of document {name} do not lie one after the other: write "
                "the pair anew, or give its text"
            )
        start, stop = 0, len(ids)
        while stop > start and int(ids[stop - 1]) in self._special:
            stop -= 1
        while start < stop and int(ids[start]) in self._special:
            start += 1
        return TokenSpan(place + start * ids.itemsize, stop - start, ids.dtype.str)
