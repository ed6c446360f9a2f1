"""The scores of a run by document and item, as the file that lies beside its result.

Scores of held-out text are named by its content, so that the file says the same to whoever calls a
domain by another name; totals and sizes are of 32 bits, which leaves a score to 1e-6.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.runs.run_spec import BY_NAMES, HELD_OUT, RunSpec
from cuvee.mixtures.runs.unit_scores import UnitScores

UNIT_FILE = "units.npz"
COLUMNS = {"keys": np.uint64, "totals": np.float32, "sizes": np.float32}


def units_to_bytes(spec: RunSpec, units: Mapping[str, UnitScores]) -> bytes:
    """The file of a run's units, which are under the names of its spec."""
    stored = {name: own for own, name in reversed(_stored_names(spec, units).items())}
    parts = [units[own] for own in stored.values()]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts] or [[]]).astype(kind)
        for name, kind in COLUMNS.items()
    }
    file, names = io.BytesIO(), np.array(list(stored), np.str_)
    lengths = np.array([len(part) for part in parts])
    np.savez_compressed(file, allow_pickle=False, names=names, lengths=lengths, **columns)
    return file.getvalue()


def units_from_bytes(spec: RunSpec, raw: bytes) -> dict[str, UnitScores] | None:
    """What such a file has for a spec of the run, under its names; None where it is damaged."""
    try:
        if zipfile.ZipFile(io.BytesIO(raw)).testzip():
            return None  # numpy reads on past a checksum that does not match
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            ends = np.cumsum(file["lengths"])[:-1]
            columns = [
                np.split(file[name].astype(np.float64 if kind is np.float32 else kind), ends)
                for name, kind in COLUMNS.items()
            ]
            names = file["names"].tolist()
            parts = {n: UnitScores(*part) for n, *part in zip(names, *columns, strict=True)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, EvidenceError):
        return None
    wanted = [HELD_OUT + name for name in spec.domains]
    wanted += [name for name in parts if not name.startswith(HELD_OUT)]
    return {own: parts[n] for own, n in _stored_names(spec, wanted).items() if n in parts}


def _stored_names(spec: RunSpec, names: "Mapping[str, UnitScores] | list[str]") -> dict[str, str]:
    """What each target is called in the file: held-out text by its content, if it has a hash."""
    by_names = spec.version == BY_NAMES
    contents = spec.domains if by_names else spec.contents
    known = {HELD_OUT + n: HELD_OUT + c for n, c in zip(spec.domains, contents, strict=True)}
    return {name: known.get(name, name) for name in names}
