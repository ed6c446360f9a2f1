"""A team's own tokenizer: found in a folder, a file, the store or on Hugging Face, and checked.

Only the definition in `tokenizer.json` is used, and what the files beside it say of the token that
ends a document; code that comes with a tokenizer is never run. Kept in the store by content, a
tokenizer that was trained on a corpus can be asked for again.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.tokenizer import TokenizerFile, check_tokenizer, load_tokenizer

DEFINITION = "tokenizer.json"
BESIDE = ("tokenizer_config.json", "special_tokens_map.json")  # which name the special tokens
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(?<!\.json)", re.ASCII)
CONTENT = re.compile(r"[0-9a-f]{64}")
SLOW = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
MAKE = (
    "write the fast one: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` of "
    "transformers does"
)


def find_tokenizer(given: str, *, store: str, cache: Path, end: str = "") -> TokenizerFile:
    """The tokenizer that a recipe names.

    Args:
        given: a folder, a tokenizer.json, the sha256 of one in the store, or a name on Hugging
            Face, which is looked for in its cache and, unless the environment forbids it, fetched.
        store: URL of the store.
        cache: folder for what is taken from the store.
        end: the token that ends a document; "" for the one that its files say, or a known name.

    Raises:
        DataError: there is none, or one that loses text or has no end of a document.
        CorruptError: the file is no tokenizer, or not the one that was kept.
    """
    path = Path(os.path.expanduser(given))  # a user who is unknown stays as written
    if CONTENT.fullmatch(given) and not path.exists():
        path = fetch_tokenizer(store, given, cache)
    elif path.is_dir():
        path = _in_folder(path)
    elif not path.exists():
        path = _from_hub(given)
    _check_definition(path)
    found = TokenizerFile(path, end or _said_end(path.parent))
    loaded = load_tokenizer(path, found.end_of_text, advice=MAKE)
    check_tokenizer(loaded, f"the tokenizer {given}")
    return found


def keep_tokenizer(store: str, path: Path) -> str:
    """Keep a tokenizer.json in the store, under the sha256 that this returns."""
    raw = path.read_bytes()
    content = hashlib.sha256(raw).hexdigest()
    ObjectFolder(store).create(f"tokenizers/{content}", raw)
    return content


def fetch_tokenizer(store: str, content: str, cache: Path) -> Path:
    """A tokenizer.json of the store, by its sha256.

    Raises:
        DataError: the store has no such tokenizer.
        CorruptError: it is not what was kept.
    """
    path = cache / content / DEFINITION
    if path.exists() and file_digest(path) == content:
        return path
    raw = ObjectFolder(store).read(f"tokenizers/{content}")
    if raw is None:
        raise DataError(f"no tokenizer {content} in the store {store}: name a folder or a file")
    if hashlib.sha256(raw).hexdigest() != content:
        raise CorruptError(f"tokenizers/{content} in the store {store} is not what was kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def _in_folder(folder: Path) -> Path:
    if (folder / DEFINITION).is_file():
        return folder / DEFINITION
    slow = [name for name in SLOW if (folder / name).is_file()]
    why = f"{' and '.join(slow)} alone cannot be used: {MAKE}" if slow else "name its folder"
    raise DataError(f"corpus.tokenizer: no {DEFINITION} in {folder}; {why}")


def _check_definition(path: Path) -> None:
    """See that a file is the definition of a tokenizer, before a library says less of it.

    Raises:
        DataError: what it is instead.
    """
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"the tokenizer {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is no {DEFINITION}, which is JSON: {error}. Name the folder of the tokenizer, "
            f"or {MAKE}"
        ) from error
    if not isinstance(body, dict) or not isinstance(body.get("model"), dict):
        has = ", ".join(body)[:200] if isinstance(body, dict) else f"a {type(body).__name__}"
        raise DataError(
            f"{path} is JSON, but no tokenizer: it has no `model` (it has: {has or 'nothing'}). "
            f"Name the {DEFINITION} beside it, or {MAKE}"
        )


def _from_hub(name: str) -> Path:
    """A tokenizer by its name on Hugging Face, from the user's cache or fetched now."""
    if not HUB_NAME.fullmatch(name):
        raise DataError(
            f"corpus.tokenizer: {name} is no folder or file here, and no name on Hugging Face can "
            "be written so. Give a path, or fetch one by a name such as gpt2 or owner/name"
        )
    import huggingface_hub  # here: no study but one that names something there needs it
    from huggingface_hub import constants, errors

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # which tells of every attempt
    try:
        path = Path(huggingface_hub.hf_hub_download(name, DEFINITION))
        for other in BESIDE:
            try:
                huggingface_hub.hf_hub_download(name, other)
            except errors.EntryNotFoundError:
                continue
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError) as error:
        offline = ", and HF_HUB_OFFLINE forbids to ask" if constants.HF_HUB_OFFLINE else ""
        raise DataError(
            f"corpus.tokenizer: {name} is no folder or file here, and no {DEFINITION} of this name "
            f"comes from Hugging Face ({type(error).__name__}; its cache is "
            f"{constants.HF_HUB_CACHE}{offline}). Give a path, or fetch it: `hf download {name} "
            f"{' '.join((DEFINITION, *BESIDE))}`"
        ) from error
    return path


def _said_end(folder: Path) -> str:
    """The end of a text as the files beside a tokenizer name it; "" where none does."""
    return next(_said_ends(folder), "")


def _said_ends(folder: Path) -> Iterator[str]:
    for name in BESIDE:
        try:
            said = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise CorruptError(f"{folder / name} cannot be read ({error})") from None
        token = said.get("eos_token") if isinstance(said, dict) else None
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            yield token
