"""Which formats there are, which of them a path holds, and how to open it."""

import os
from difflib import get_close_matches
from typing import Any

from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, FormatError
from codec.formats.base import Format, Place, Source
from codec.formats.binsparse import Binsparse
from codec.formats.compressed_tensors import Sparse24Bitmask, SparseBitmask
from codec.formats.coreml import CoreML
from codec.formats.macko import Macko
from codec.formats.onnx import Onnx
from codec.formats.packed import Packed
from codec.formats.safetensors import Safetensors
from codec.formats.scipy import ScipyNpz
from codec.formats.tca_bme import TcaBme
from codec.formats.tflite import TFLite
from codec.formats.torch import TorchFile

# In the order in which they are asked whether a file is theirs: what looks at more of it comes first.
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Packed(), SparseBitmask(), Sparse24Bitmask(), CoreML(), Safetensors(), Macko(), TorchFile(), Binsparse(),
        ScipyNpz(), TcaBme(), Onnx(), TFLite(),
    )
}  # fmt: skip


def named_format(name: str) -> Format:
    """The format of that name, with what it needs installed; ArgumentError, with close names, if there is none.

    >>> named_format("safetensor")
    Traceback (most recent call last):
        ...
    codec.errors.ArgumentError: no format 'safetensor'; did you mean 'safetensors'? codec formats lists all
    """
    if name not in FORMATS:
        near = get_close_matches(name, FORMATS, n=1)
        raise ArgumentError(
            f"no format {name!r}{f'; did you mean {near[0]!r}?' if near else ';'} codec formats lists all"
        )
    FORMATS[name].require()
    return FORMATS[name]


def format_of(path: str) -> Format | None:
    """The format of what lies at a path, whether or not what it needs is installed; None if none is known.

    Raises FormatError for a damaged file, and OSError.
    """
    return _claimant(Place.of(path))


def _claimant(place: Place) -> Format | None:
    return next((one for one in FORMATS.values() if one.claims(place)), None)


def open_file(path: str | os.PathLike[str], format: str | None = None) -> Source:
    """Open a file or folder of another tool.

    Parameters
    ----------
    path : path
        What holds the model, or a single tensor.
    format : str, optional
        One of FORMATS; by default what the bytes and names there look like. It is a name in a closed list: no file
        chooses code by what it says.

    Returns
    -------
    Source
        A mapping of names to PackedTensors (what is stored sparse) and arrays, each made when it is asked for.

    Raises
    ------
    ArgumentError
        For an unknown format, or one whose extra is not installed.
    FormatError
        For a file that is damaged or contradicts itself; it names the file, or the tensor.

    Examples
    --------
    >>> with open_file("pruned.onnx") as model:  # doctest: +SKIP
    ...     weights = dict(model)
    """
    place = Place.of(os.fsdecode(path))
    found = _claimant(place) if format is None else named_format(format)
    if found is None:
        raise ArgumentError(f"{place.path!r} is of no format that is known here; codec formats lists those that are")
    found.require()
    try:
        return found.open(place)
    except FormatError as error:
        if place.path in error.message:
            raise
        words = f"{error.message} (in {place.path!r})"
        raise type(error)(words, tensor=error.tensor, stream=error.stream, offset=error.offset) from error


def support() -> list[dict[str, Any]]:
    """Which format takes which dtypes, in and out: one row for each format, as `codec formats` prints it.

    Returns
    -------
    list of dict
        ``format``, ``summary``, ``extra``, and ``dtypes``: by safetensors name "in", "out", "in, out" or "".

    >>> support()[0]["format"], support()[0]["dtypes"]["BF16"]
    ('codec', 'in, out')
    """
    return [
        {
            "format": one.name,
            "summary": one.summary,
            "extra": one.extra,
            "dtypes": {
                name: ", ".join(word for word, dtypes in (("in", one.reads), ("out", one.writes)) if name in dtypes)
                for name in BY_NAME
            },
        }
        for one in FORMATS.values()
    ]
