"""The text of a study in a recipe: its domains, where they lie, and how a corpus is made."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cuvee.flows.recipe.parts import Count, Part, Share
from cuvee.mixtures.errors import RecipeError
from cuvee.proxies.data.sources.documents import Sample
from cuvee.proxies.data.sources.row_filter import RowFilter
from cuvee.proxies.data.sources.source_files import TOKENS

OF_TEXT = ("attributes", "field", "filter", "glob", "id", "separator")  # and not of token files


class DatasetPart(Part):
    """A data set of the Hugging Face Hub, or a folder that is one."""

    name: str = Field(
        min_length=1,
        description="The data set's name on the Hub, or the folder of one on this machine.",
        examples=["allenai/c4"],
    )
    config: str | None = Field(
        default=None,
        description="Which of its configurations; null where it has but one.",
        examples=["en"],
    )
    split: str = Field(
        default="train",
        min_length=1,
        description="Which of its splits is read.",
        examples=["validation"],
    )
    revision: str | None = Field(
        default=None,
        description="A commit, tag or branch; null for the newest. Name a commit to keep the "
        "corpus as it is.",
        examples=["1588ec454efa1a09f29cd18ddd04fe05fc8653a2"],
    )


class TakePart(Part):
    """How much of a large domain is read, and which part of it."""

    tokens: Count = Field(
        description="Training tokens that are wanted, about; never fewer while there are more.",
        examples=["2B"],
    )
    by: Literal["parts", "content"] = Field(
        default="parts",
        description="`parts` reads files and parts of files that a hash chooses, and no more than "
        "is needed; `content` reads everything and keeps the documents whose hashes are smallest, "
        "so that all duplicates are found.",
        examples=["content"],
    )

    @property
    def sample(self) -> Sample:
        """The same for those who read."""
        return Sample(self.tokens, self.by)


def _amount_taken(value: Any) -> Any:
    return value if value is None or isinstance(value, Mapping | Part) else {"tokens": value}


class SourcePart(Part):
    """One domain of a user's own corpus."""

    path: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="A file, a folder, a glob, or a list of them, on this machine or by URL "
        "(s3://, gs://, az://, hf://, https://): plain text, JSON lines, .csv, .tsv, .parquet or "
        ".arrow, compressed or not. Either this or `dataset`.",
        examples=["data/web/*.jsonl.zst", ["data/a.txt", "data/b.txt"], "s3://bucket/web/"],
    )
    dataset: DatasetPart | None = Field(
        default=None,
        description="A Hugging Face data set in place of `path`; its files are read as they are "
        "needed.",
        examples=[{"name": "allenai/c4", "config": "en"}],
    )
    glob: list[str] = Field(
        default=[],
        description="Patterns of the files that are read within a folder, each a document unless "
        "it holds rows: for programs and whatever else has an ending of its own.",
        examples=[["*.py", "*.rs"]],
    )
    format: (
        Literal[
            "text", "jsonl", "json", "csv", "tsv", "parquet", "arrow",
            "megatron", "olmo", "datatrove",
        ]
        | None
    ) = Field(
        default=None,
        description="What the files are, where their names do not say it; null goes by the names. "
        "`megatron` (.bin beside .idx), `olmo` (.npy) and `datatrove` (.ds) are token files.",
        examples=["jsonl", "megatron"],
    )  # fmt: skip
    tokens_of: str | None = Field(
        default=None,
        min_length=1,
        description="The tokenizer that made these token files, as `corpus.tokenizer` is named, "
        "where it is another than the corpus's: they are decoded, and encoded anew.",
        examples=["gpt2"],
    )
    field: str = Field(
        default="text",
        description="The key or column that holds the text, in JSON lines and tables; `a.b` is b "
        "within a.",
        examples=["content"],
    )
    id: str | None = Field(
        default=None,
        min_length=1,
        description="The key or column with a document's id, by which it can be found in the "
        "corpus; null for none.",
        examples=["url"],
    )
    attributes: list[str] = Field(
        default=[],
        description="Keys or columns that are kept for each document, beside the tokens; they are "
        "no part of what a domain is.",
        examples=[["language", "metadata.score"]],
    )
    separator: str | None = Field(
        default=None,
        min_length=1,
        description="What parts the documents of a plain text file; without it a file is one "
        "document.",
        examples=["\n\n\n"],
    )
    take: Annotated[
        TakePart | None,
        BeforeValidator(_amount_taken, json_schema_input_type=Count | TakePart | None),
    ] = Field(
        default=None,
        description="Tokens that are read of a large domain, in place of all; natural shares, "
        "epochs and caps follow the size of the whole, estimated unless `tokens` gives it.",
        examples=["2B", {"tokens": "2B", "by": "content"}],
    )
    tokens: Count | None = Field(
        default=None,
        description="Training tokens that the domain has in truth, where what is given here is a "
        "sample of it.",
        examples=["100B"],
    )
    filter: str | None = Field(
        default=None,
        min_length=1,
        description="Which rows are read, by their fields: comparisons, `in`, `and`, `or`, `not`.",
        examples=['language == "en"', "meta.score >= 3 and not toxic"],
    )

    @field_validator("filter")
    @classmethod
    def _filter_reads(cls, value: str | None) -> str | None:
        try:
            return value if value is None else RowFilter(value).text
        except RecipeError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _one_place(self) -> "SourcePart":
        if (self.path is None) == (self.dataset is None):
            raise ValueError(
                "a domain's text comes from `path` or from `dataset`: give one of them"
            )
        if self.filter and self.token_format:
            raise ValueError("token files have no fields that a `filter` could ask for: remove it")
        return self

    @model_validator(mode="after")
    def _of_tokens(self) -> "SourcePart":
        given = sorted({*OF_TEXT} & self.model_fields_set)
        if self.token_format and given:
            raise ValueError(f"token files hold no {', '.join(given)}: leave it out")
        if self.tokens_of and not self.token_format:
            raise ValueError(
                f"`tokens_of` is of token files ({', '.join(TOKENS.values())}); for those of "
                "another name say which in `format`"
            )
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths, as they are written."""
        return (self.path,) if isinstance(self.path, str) else tuple(self.path or ())

    @property
    def token_format(self) -> str:
        """The format of token files, said or seen by their names; "" for text."""
        if self.format:
            return self.format if self.format in TOKENS else ""
        kinds = {
            kind for kind, ending in TOKENS.items() if any(p.endswith(ending) for p in self.paths)
        }
        alone = all(p.endswith(tuple(TOKENS.values())) for p in self.paths)
        return kinds.pop() if alone and len(kinds) == 1 else ""


class CorpusPart(Part):
    """Where the text comes from: the quickstart's domains, or paths by domain."""

    quickstart: list[str] = Field(
        default=[],
        description="Domains of the text that Cuvée fetches itself; either these or `domains`.",
        examples=[["encyclopedia", "legal", "code_python"]],
    )
    domains: dict[str, SourcePart] = Field(
        default={},
        description="Your own text: the domains whose shares are chosen, by name.",
        examples=[{"web": {"path": "data/web/*.jsonl.zst"}, "docs": {"path": "data/docs/"}}],
    )
    vocabulary: Count = Field(
        default=4096,
        description="Entries of the tokenizer that is trained on the text, in tokens; it has no "
        "effect with `tokenizer`, or with `proxy.start`, whose own is taken.",
        examples=[8192],
    )
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        description="Your own tokenizer, any fast one that gives every text back: a folder with a "
        "`tokenizer.json` (of a checkpoint, say), such a file, a name on Hugging Face, or the "
        "sha256 of one in the store. Without it one is trained on the text.",
        examples=["tokenizers/ours/", "gpt2"],
    )
    end_of_text: str | None = Field(
        default=None,
        min_length=1,
        description="The token of `tokenizer` that ends a document, where its files do not say so.",
        examples=["<|endoftext|>"],
    )
    heldout_bytes: Count = Field(
        default=400_000,
        description="Text of each domain that is held out of training, to be scored; in bytes, at "
        "most.",
        examples=["1M"],
    )
    min_tokens: Count = Field(
        default=16_384,
        description="Training tokens that a domain needs at least; a smaller one is refused.",
        examples=["100k"],
    )
    deduplicate: Literal["exact", "near"] = Field(
        default="exact",
        description="Which documents are removed because others say the same: `exact`, of equal "
        "texts all but one; `near`, also of texts that share most of their runs of five words, "
        "within a domain and between domains.",
        examples=["near"],
    )
    tolerance: Share = Field(
        default=0.0,
        description="A domain that only grew, by less than this share of its tokens, keeps the "
        "text that its runs were trained on, with a warning; 0 takes all text as it is.",
        examples=[0.02],
    )
    on_error: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="What becomes of rows that hold no text (nulls, malformed JSON, bytes that are "
        "not UTF-8): `refuse` ends the preparation, `skip` leaves them out and counts them.",
        examples=["skip"],
    )
