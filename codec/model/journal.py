"""Which files of an output are finished, so that work that was interrupted goes on where it was."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from codec.errors import CodecError
from codec.interop.folding import masked_pairs
from codec.model.atomic import write_atomic
from codec.model.disk import open_path
from codec.model.output import Output
from codec.model.reader import ModelFile
from codec.model.shards import journal_name, opened

_LIMIT = 1 << 26  # bytes


class Journal:
    """Which files of a sharded output are finished, from what and for what request; a file beside the index to be.

    It is believed of a file only if that is there, with a good header and index, and the same as when it was finished;
    and if the source is the same. ``request`` is None where nothing can be believed.
    """

    def __init__(self, model: ModelFile, output: Output, request: str | None) -> None:
        self._output = output
        self._path: str | None = None
        self._files: dict[str, list[str]] = {}
        if output.index is None or request is None:
            return
        folder, name = os.path.split(output.index)
        self._path, self._request = os.path.join(folder, journal_name(name)), request
        self._sources = _sources(model, output)
        self._files = self._read()

    def finished(self) -> list[str]:
        """Files that need not be written again."""
        return [path for path in self._output.files if self._has(path)]

    def add(self, path: str) -> None:
        """Note that a file is finished."""
        if self._path is None:
            return
        self._files[os.path.basename(path)] = [self._sources[path], _fingerprint(path) or ""]
        write_atomic(self._path, [json.dumps({"request": self._request, "files": self._files}, indent=1).encode()])

    def remove(self) -> None:
        """All is finished."""
        if self._path is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    def _has(self, path: str) -> bool:
        entry = self._files.get(os.path.basename(path))
        return entry is not None and entry == [self._sources[path], _fingerprint(path)]

    def _read(self) -> dict[str, list[str]]:
        assert self._path is not None
        try:
            with open(self._path, "rb") as file:
                found = json.loads(file.read(_LIMIT))
        except (OSError, ValueError, RecursionError):
            return {}
        fits = isinstance(found, dict) and found.get("request") == self._request
        files = found.get("files") if fits else None
        return files if isinstance(files, dict) else {}


def digest(request: list[Any]) -> str | None:
    """What tells a request from others; None where it holds something of which nothing tells whether it is the same."""
    try:
        text = json.dumps(request, sort_keys=True, default=_plain)
    except (TypeError, ValueError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        bits = np.ascontiguousarray(value).tobytes()
        return [str(value.dtype), value.shape, hashlib.sha256(bits).hexdigest()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


def _sources(model: ModelFile, output: Output) -> dict[str, str]:
    """For each file of an output, what tells the content that it is made of from other content."""
    where = {name: number for number, file in enumerate(model.files) for name in file.names}
    masks = {
        pair.orig: pair.mask for pair in masked_pairs(where, beside=True)
    }  # may lie in another file, and are folded in
    prints = [file.fingerprint() for file in model.files]
    found = {}
    for path, names in output.files.items():
        needed = {where[name] for name in names} | {where[masks[name]] for name in names if name in masks}
        content = [[prints[number] for number in sorted(needed)], names]
        found[path] = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return found


def _fingerprint(path: str) -> str | None:
    """The fingerprint of a file whose header and index are good; None for any other."""
    try:
        file = opened(open_path(path))
    except (CodecError, OSError):
        return None
    try:
        return file.fingerprint()
    finally:
        file.raw.close()
