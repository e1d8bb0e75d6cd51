"""What a format of another tool is: its names, the dtypes that it can express, how its files are opened and written."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.util import find_spec
from math import prod
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from codec.arraylike import as_array
from codec.dtypes import element_type
from codec.errors import ArgumentError, FormatError, UnknownTensorError
from codec.model import TensorInfo, naming, safe_open
from codec.model.carried import Carried, carry
from codec.model.disk import open_path
from codec.model.foreign import LOOK
from codec.packed import PackedTensor
from codec.tensor import encode

_PIECE = 1 << 22  # elements whose zeros are counted at a time


@dataclass(frozen=True)
class Place:
    """A path that may hold a model: a regular file with its first bytes, or a folder with the names of its files."""

    path: str
    first: bytes
    names: tuple[str, ...]

    @classmethod
    def of(cls, path: str) -> Self:
        """What lies there; OSError if nothing does, FormatError for what is neither a file nor a folder."""
        if os.path.isdir(path):
            return cls(path, b"", tuple(sorted(name for name in os.listdir(path) if name[0] != ".")))
        raw = open_path(path)
        try:
            return cls(path, bytes(raw.read(0, min(LOOK, raw.size))), (os.path.basename(path),))
        finally:
            raw.close()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return os.path.isdir(self.path)

    @property
    def folder(self) -> str:
        """The folder itself, or that of the file."""
        return self.path if self.is_folder else os.path.dirname(self.path) or "."

    def ending(self, *suffixes: str) -> list[str]:
        """Names of files that end in one of these."""
        return [name for name in self.names if name.endswith(suffixes)]

    def only(self, suffix: str) -> str:
        """The path of the file, or of the only one in the folder that ends so; ArgumentError if there is not one."""
        if not self.is_folder:
            return self.path
        found = self.ending(suffix)
        if len(found) != 1:
            raise ArgumentError(
                f"{self.path!r} holds {len(found)} files that end in {suffix}; expected one: name a file"
            )
        return os.path.join(self.path, found[0])

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """What the safetensors model there says of its tensors; it is opened once for all formats that ask."""
        with safe_open(self.path) as model:
            return {name: model.info(name) for name in model}


class Stored(NamedTuple):
    """A tensor that can be read, and the name, without folder and suffix, of the file that it comes from."""

    read: Callable[[], Any]
    file: str


@dataclass(eq=False)
class Source(Mapping[str, Any]):
    """An open file or folder of some format: tensors by name, each made when it is asked for.

    A tensor that is stored sparse comes as a PackedTensor in layout csr, without a dense copy, and one that is stored
    dense as an array. Errors name the tensor.

    Attributes
    ----------
    format : str
        The format's name.
    path : str
        What was opened; empty for tensors in memory.
    tensors : dict of str to Stored
        Gives each tensor.
    metadata : dict of str to str
        What the file says besides, for formats that have that; of several files what they agree on.
    index : dict
        What the index of several files says besides their names.
    notes : list of str
        What to say to whoever asked for the tensors, such as what is left out.
    """

    format: str
    path: str
    tensors: dict[str, Stored]
    metadata: dict[str, str] = field(default_factory=dict)
    on_close: Callable[[], None] = lambda: None
    notes: list[str] = field(default_factory=list)
    index: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> Self:
        """Tensors in memory: arrays, torch tensors or PackedTensors."""
        return cls("codec", "", {name: Stored(partial(tensors.__getitem__, name), "model") for name in tensors})

    def __getitem__(self, name: str) -> Any:
        value = self.stored(name)
        with naming(name):
            return value.array() if isinstance(value, Carried) else value

    def stored(self, name: str) -> Any:
        """The tensor as it is written to another file: of a dense one its bytes, where those are not read before."""
        if name not in self.tensors:
            raise UnknownTensorError(name, self.tensors)
        with naming(name):
            return self.tensors[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """The names of the tensors in each file."""
        found: dict[str, list[str]] = {}
        for name, stored in self.tensors.items():
            found.setdefault(stored.file, []).append(name)
        return {file: tuple(names) for file, names in found.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.on_close()


class Format(ABC):
    """One format; an instance is a row of FORMATS.

    Attributes
    ----------
    name, summary : str
        What the command line calls it, and what it is, in one line.
    reads, writes : tuple of str
        Dtypes of sparse tensors that come in and go out, by their safetensors names.
    entry_bits, element_bits : float
        Bits of the positions for each stored entry and for each element: with the values they say from which share of
        zeros on a tensor is smaller sparse.
    matrices : bool
        Whether a sparse tensor has two dimensions.
    networks : bool
        Whether a file is a whole network, so that ``like`` may name one in which tensors are replaced.
    drops_zeros : bool
        Whether stored zeros, and with them every -0.0, are left out of sparse tensors that are written.
    keeps_metadata : bool
        Whether a file has room for metadata: texts by name.
    extra : str or None
        The extra of this package that brings what the format needs.
    modules : tuple of str
        What that extra has to bring.
    suffix : str
        Of the files that are written.
    endings : tuple of str
        What else the names of its files end in; those of several formats may be the same.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[tuple[str, ...]]
    entry_bits: ClassVar[float] = 0
    element_bits: ClassVar[float] = 0
    matrices: ClassVar[bool] = False
    networks: ClassVar[bool] = False
    drops_zeros: ClassVar[bool] = False
    keeps_metadata: ClassVar[bool] = False
    extra: ClassVar[str | None] = None
    modules: ClassVar[tuple[str, ...]] = ()
    suffix: ClassVar[str]
    endings: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def claims(self, place: Place) -> bool:
        """Whether what lies there looks like this format."""

    @abstractmethod
    def open(self, place: Place) -> Source:
        """The tensors there; FormatError for what is not of this format."""

    @abstractmethod
    def write(self, path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str], like: str | None) -> None:
        """Write one file: PackedTensors sparse, everything else dense.

        ``like`` is a file of this format whose network is kept, for the formats that have one. ArgumentError names a
        tensor that cannot be expressed; nothing is written then.
        """

    def is_named(self, path: str) -> bool:
        """Whether a file of that name may be one of this format."""
        return path.endswith((self.suffix, *self.endings))

    def paths(self, path: str) -> list[str]:
        """Every file that writing one may make."""
        return [path]

    def check(self, name: str, packed: PackedTensor) -> None:
        """ArgumentError if a tensor of that name cannot be stored sparse."""
        dtype = packed.spans.head.element.name
        if dtype not in self.writes:
            raise ArgumentError(f"{self.name} has no sparse {dtype}; it has {', '.join(self.writes)}")
        if self.matrices and packed.ndim != 2:
            raise ArgumentError(f"{self.name} has only sparse matrices; this tensor has shape {packed.shape}")

    def is_smaller(self, shape: tuple[int, ...], nnz: int, width: int) -> bool:
        """Whether a tensor of so many non-zeros of ``width`` bytes each takes less space sparse than dense."""
        size = prod(shape)
        return nnz * (8 * width + self.entry_bits) + size * self.element_bits < 8 * width * size

    def form(self, name: str, value: Any, wanted: bool | None) -> Any:
        """A source's tensor as `write` takes it: a PackedTensor to be stored sparse, anything else to be stored dense.

        With ``wanted`` True it has to be sparse, with False dense; with None it is sparse if it has two dimensions or
        more and is smaller so. ArgumentError if it should be sparse, but the format cannot express it.
        """
        if wanted is False or (wanted is None and isinstance(value, Carried) and not value.can_be_packed):
            return dense(value)
        if wanted is None and not (len(value.shape) > 1 and self._smaller(value)):
            return dense(value)
        packed = value if isinstance(value, PackedTensor) else encode(array_of(value), layout="csr", entropy="none")
        self.check(name, packed)
        return packed

    def _smaller(self, value: Any) -> bool:
        if isinstance(value, PackedTensor):
            return self.is_smaller(value.shape, value.nnz, value.spans.head.element.width)
        array = array_of(value)
        return self.is_smaller(array.shape, nonzeros(array), array.itemsize)

    def require(self) -> None:
        """ArgumentError if a module that the format needs is not installed."""
        for module in self.modules:
            if find_spec(module) is None:
                raise ArgumentError(
                    f"format {self.name} needs the package {module}, which is not installed: "
                    f"pip install 'codec[{self.extra}]'"
                )


def missing(group: str, found: Mapping[str, Any], expected: tuple[str, ...]) -> FormatError:
    """The error for a tensor of several arrays of which not all are there."""
    absent = [name for name in expected if name not in found]
    return FormatError(
        f"{', '.join(f'{group}.{name}' for name in absent)} is missing beside "
        f"{', '.join(f'{group}.{name}' for name in found)}: the file is incomplete"
    )


def array_of(value: Any) -> np.ndarray:
    """A source's tensor as an array."""
    if isinstance(value, PackedTensor):
        return value.to_dense()
    return value.array() if isinstance(value, Carried) else as_array(value)


def dense(value: Any) -> Any:
    """A source's tensor, not packed."""
    return value.to_dense() if isinstance(value, PackedTensor) else value


def carried(value: Any) -> Carried:
    """A dense tensor as its bytes."""
    return value if isinstance(value, Carried) else carry(value)


def nonzeros(array: np.ndarray) -> int:
    """Elements that do not compare equal to 0, counted in pieces."""
    element = element_type(array.dtype)
    bits = np.ascontiguousarray(array, element.dtype).reshape(-1).view(element.unsigned)
    mask = element.unsigned.type(element.nonzero_bits("value"))
    return sum(int(np.count_nonzero(bits[at : at + _PIECE] & mask)) for at in range(0, len(bits), _PIECE))
