"""Hugging Face data sets by name, config, split and revision: which files they are.

The files are read by what reads all others, as they are needed: nothing is downloaded beforehand, a
bad row is named by its file, and a revision's files are known by what the Hub says of them.
"""

from datasets import load_dataset_builder

from cuvee.mixtures.errors import DataError

READ = ("arrow", "csv", "json", "parquet", "text")  # what `datasets` calls the formats read here


def dataset_files(
    name: str, config: str | None, split: str, revision: str | None
) -> tuple[str, ...]:
    """The files of one split, as URLs of the Hub at the commit, or as paths of a local folder.

    Args:
        name: on the Hub, or a folder.
        config: which configuration; None where there is but one.
        split: which split.
        revision: a commit, tag or branch; None for the newest.

    Raises:
        DataError: there is no such data set, or it is of another kind; says what there is.
    """
    shown = f"data set {name}" + (f", config {config}" if config else "")
    try:
        builder = load_dataset_builder(name, config, revision=revision)
    except Exception as error:  # of the Hub, of the network, of what the repository says of itself
        why = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise DataError(
            f"{shown} cannot be opened: {why}. One that is not public takes HF_TOKEN in the "
            "environment"
        ) from error
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in READ:
        raise DataError(f"{shown} holds {kind}, not text; read are: {', '.join(READ)}")
    files = builder.config.data_files or {}
    if split not in files:
        raise DataError(f"{shown} has no split {split!r}; it has: {', '.join(map(str, files))}")
    return tuple(map(str, files[split]))
