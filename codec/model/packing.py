"""Which tensors are packed, how, and which are stored once: the decisions of a writer, tensor by tensor."""

import weakref
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from codec.dtypes import element_type
from codec.encoding.pack import Made, pack_array
from codec.encoding.request import check_objective
from codec.errors import ArgumentError
from codec.frame import MAGIC
from codec.matrix import check_zero
from codec.model.atomic import Spool
from codec.model.carried import Carried, carry
from codec.model.file import naming
from codec.model.index import Record, crcs_of
from codec.packed import PackedTensor

# What packing must save. Vectors and scalars are norms, biases and steps, which other tools read as they are.
LEAST_OF_VECTORS = 64 << 10  # bytes
LEAST_BYTES, LEAST_SHARE = 256, 64  # bytes, and one part in so many
_SMALL = 256  # bytes of a tensor that are kept in memory instead of being read a second time
SMALLEST_FRAME = 32  # bytes: the head of a frame never takes less


def worth_packing(shape: tuple[int, ...], dense_nbytes: int, packed_nbytes: int) -> bool:
    """Whether a tensor is packed where nothing else was asked for: the rule of save_file and of ``codec encode``.

    A tensor of two dimensions or more is packed if that saves at least 256 bytes and 1/64 of its bytes, a vector or
    scalar if it saves at least 64 KiB.

    >>> worth_packing((64, 64), 16384, 16128), worth_packing((4096,), 16384, 4096)
    (True, False)
    """
    saved = dense_nbytes - packed_nbytes
    if len(shape) < 2:
        return saved >= LEAST_OF_VECTORS
    return saved >= LEAST_BYTES and saved * LEAST_SHARE >= dense_nbytes


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor to be written: its record, and its bytes when they are asked for."""

    name: str
    record: Record
    parts: Callable[[], Iterable[memoryview | bytes]]


@dataclass
class Rules:
    """What a caller of save_file asked for: an objective, a zero rule, and layouts by name.

    Without a zero rule it is that of the frame that a tensor comes from, and "value" for one that was not packed.
    """

    objective: str = "disk"
    zero: str | None = None
    plan: Mapping[str, Any] | None = None
    _patterns: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_objective(self.objective)
        if self.zero is not None:
            check_zero(self.zero)
        if self.plan is not None and not isinstance(self.plan, Mapping):
            raise ArgumentError(f"plan is a {type(self.plan).__name__}; expected a mapping of names to layouts")
        for key, entry in (self.plan or {}).items():
            if not isinstance(key, str) or not isinstance(entry, str | Mapping):
                raise ArgumentError(
                    f"plan gives {key!r}: {entry!r}; expected a tensor's name or shell pattern, and for it a layout's "
                    "name or a dict of encode's arguments"
                )
        self._patterns = [key for key in self.plan or () if any(sign in key for sign in "*?[")]

    def check_names(self, names: Collection[str], kind: str = "tensor") -> None:
        """ArgumentError where the plan has a name or a pattern that fits none of these tensors; ``kind``: their word.

        Nothing would come of it, and nobody would notice. Where there are none at all, a plan is for none.
        """
        if not names:
            return
        for key in self.plan or ():
            if key not in names and not (key in self._patterns and any(fnmatchcase(name, key) for name in names)):
                near = get_close_matches(key, names, n=3)
                raise ArgumentError(
                    f"plan names {key!r}, and no {kind} has such a name"
                    + (f"; close: {', '.join(near)}" if near else ": leave it out, or correct it")
                )

    def entry(self, name: str) -> Any:
        """The plan's entry for a tensor: that of its name, or of the first pattern that fits; None without one."""
        if self.plan is None:
            return None
        if name in self.plan:
            return self.plan[name]
        return next((self.plan[key] for key in self._patterns if fnmatchcase(name, key)), None)

    def arguments(self, name: str) -> dict[str, Any]:
        """What the plan gives ``encode`` for a tensor; empty if nothing."""
        entry = self.entry(name)
        if entry is None:
            return {}
        return {"layout": entry} if isinstance(entry, str) else dict(entry)


class Packer:
    """Turns tensors into what is stored of them, one after the other.

    Tensors are stored once if they are the same memory or place in a file with the same entry of the plan, or packed to
    the same bytes; without ``once`` each is stored under its own name. With a spool nothing is held in memory.
    """

    def __init__(self, rules: Rules, spool: Spool | None = None, once: bool = True) -> None:
        self.rules, self._spool, self._once = rules, spool, once
        self._stored: list[Stored] = []
        self._aliases: dict[str, str] = {}
        # A place in memory says that two tensors are the same only while the first of them lives.
        self._places: dict[Hashable, tuple[weakref.ref[Any], Any, str]] = {}
        self._frames: dict[tuple[int, int], list[Stored]] = {}

    def add(self, name: str, value: Any, zero: str = "value") -> None:
        """Store one more tensor, under ``zero`` where the caller asked for no rule; errors name it."""
        with naming(name, value.file if isinstance(value, Carried) else None):
            found = value if isinstance(value, PackedTensor | Carried) else carry(value)
            place, owner = (found.place, found.owner) if isinstance(found, Carried) else (id(found), found)
            place = place if self._once else None
            entry = self.rules.entry(name)
            first = self._places.get(place) if place is not None else None
            if first is not None and first[0]() is not None and _same_entry(first[1], entry):
                self._aliases[name] = first[2]
                return
            item = self._frame(name, found) if isinstance(found, PackedTensor) else self._packed(name, found, zero)
            twin = self._twin(item)
            if twin is None:
                self._stored.append(item)
            else:
                self._aliases[name] = twin
            if place is not None:
                self._places[place] = (weakref.ref(owner), entry, twin or name)

    def finish(self) -> tuple[list[Stored], dict[str, str]]:
        """What is stored, and the other names of it: of several names the first by code point is that of the tensor."""
        first = {item.name: item.name for item in self._stored}
        for name, target in self._aliases.items():
            first[target] = min(first[target], name)
        names = {**{item.name: item.name for item in self._stored}, **self._aliases}
        aliases = {name: first[target] for name, target in names.items() if name != first[target]}
        return [replace(item, name=first[item.name]) for item in self._stored], aliases

    def _packed(self, name: str, tensor: Carried, zero: str) -> Stored:
        planned = self.rules.arguments(name)
        ordered = planned.get("layout", "auto") not in ("auto", "dense")
        if not tensor.can_be_packed:
            if ordered and name in (self.rules.plan or ()):
                raise ArgumentError(
                    f"dtype {tensor.dtype} cannot be packed, only stored as it is, but the plan names it"
                )
            return self._as_it_is(name, tensor)
        # Bytes that would pass for a frame if the index were lost are packed, whatever that costs.
        disguised = tensor.dtype == "U8" and len(tensor.shape) == 1 and tensor.nbytes >= len(MAGIC)
        disguised = disguised and bytes(tensor.read(0, len(MAGIC))) == MAGIC
        possible = ordered or worth_packing(tensor.shape, tensor.nbytes, SMALLEST_FRAME)
        if disguised or (possible and planned != {"layout": "dense"}):
            asked = {"objective": self.rules.objective, "zero": self.rules.zero or zero, **planned}
            packed = PackedTensor(*pack_array(_elements(tensor), **asked))
            if disguised or ordered or worth_packing(tensor.shape, tensor.nbytes, packed.nbytes):
                return self._frame(name, packed)
        return self._as_it_is(name, tensor)

    def _frame(self, name: str, packed: PackedTensor) -> Stored:
        return Stored(name, record_of(packed), self._kept(frame_bytes(packed)))

    def _as_it_is(self, name: str, tensor: Carried) -> Stored:
        if tensor.in_memory or tensor.nbytes <= _SMALL:
            data = tensor.whole()
            record = Record(tensor.dtype, tensor.shape, None, tensor.nbytes, None, crcs_of(data, None))
            return Stored(name, record, self._kept(data) if tensor.in_memory else lambda: (data,))
        crcs = tensor.checksums()
        record = Record(tensor.dtype, tensor.shape, None, tensor.nbytes, None, crcs)

        def parts() -> Iterator[memoryview]:
            with naming(name, tensor.file):
                yield from tensor.parts(crcs)

        return Stored(name, record, parts)

    def _kept(self, data: memoryview) -> Callable[[], Iterable[memoryview | bytes]]:
        return self._spool.put(data) if self._spool is not None else lambda: (data,)

    def _twin(self, item: Stored) -> str | None:
        """The name under which the same frame is stored already."""
        if item.record.layout is None or not self._once:
            return None
        same = self._frames.setdefault((item.record.nbytes, item.record.crcs[0]), [])
        for other in same:
            if other.record == item.record and _same_bytes(other.parts(), item.parts()):
                return other.name
        same.append(item)
        return None


def _elements(tensor: Carried) -> Any:
    """What ``pack_array`` takes. What the caller holds is not freed, and may stay the source of all layouts tried."""
    if tensor.owner is not None:
        return tensor.array()
    return tensor.elements() if tensor.piecewise else Made(tensor.array)


def frame_bytes(packed: PackedTensor) -> memoryview:
    """The frame of a packed tensor, without a copy."""
    return packed._bytes.data


def record_of(packed: PackedTensor) -> Record:
    """What the index says of a packed tensor."""
    crcs = crcs_of(frame_bytes(packed), packed.layout)
    return Record(element_type(packed.dtype).name, tuple(packed.shape), packed.layout, packed.nbytes, packed.nnz, crcs)


def _same_entry(one: Any, other: Any) -> bool:
    """Whether two entries of a plan say the same. Arrays are not compared: only one and the same is the same."""
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same_entry(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_same_entry, one, other))
    return isinstance(one, str | int) and type(one) is type(other) and one == other


def _same_bytes(one: Iterable[memoryview | bytes], other: Iterable[memoryview | bytes]) -> bool:
    return all(a == b for a, b in zip(one, other, strict=True))
