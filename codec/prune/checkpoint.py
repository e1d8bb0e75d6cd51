"""Pruning whole models, file by file: which tensors are pruned, and what is written of each.

select -> which tensors, and why others are left alone
Pruning.find_threshold -> for one threshold over all of them, how much of each goes
Pruning(...) -> the files, one tensor in memory at a time
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from codec.dtypes import BY_NAME, element_type
from codec.elements import Pieces
from codec.errors import ArgumentError
from codec.interop.folding import MaskedPair, check_halves, folded, masked_pairs
from codec.kernels import octets
from codec.model import ModelFile, naming
from codec.model.atomic import Spool
from codec.model.carried import Carried
from codec.model.huggingface import stores_names_once
from codec.model.packing import Packer, Rules
from codec.model.writer import checked_metadata, write_model, write_plain
from codec.prune.masking import remove, removed
from codec.prune.roles import role
from codec.prune.structures import applies
from codec.prune.thresholds import removals

_PIECE = 1 << 18  # elements at a time, so that temporary arrays stay small
# Bytes of a tensor that is read whole and pruned in its own memory; single weights of a larger one are read again for
# each pass over them, some at a time.
_HELD = 1 << 24


@dataclass(frozen=True)
class Selection:
    """Names of the tensors to prune, and of those that are left alone, with the reason."""

    names: tuple[str, ...]
    left: Mapping[str, str]


class Tensors:
    """The tensors of an open model by the names that they have when they are written.

    With ``fold`` weights and the mask beside them are one tensor, such as ``x`` for ``x_orig`` and ``x_mask``; without
    it they are what they are in the file.

    Raises ArgumentError if one half of a pair is missing.
    """

    def __init__(self, model: ModelFile, fold: bool) -> None:
        self.model = model
        self.pairs = masked_pairs(model.keys(), beside=fold)
        if fold:
            check_halves(model.keys())
        self._pairs = {pair.orig: pair for pair in self.pairs} if fold else {}
        self._masks = {pair.mask for pair in self._pairs.values()}
        self.sources = dict(self.of(model.keys()))

    def of(self, names: Any) -> Iterator[tuple[str, str]]:
        """(name when it is written, name in the file) of tensors in the file; those of folded masks are left out."""
        for name in names:
            if name not in self._masks:
                yield (self._pairs[name].name if name in self._pairs else name), name

    def info(self, name: str) -> Any:
        """What the file says of a tensor; of a folded one what it says of ``x_orig``."""
        return self.model.info(self.sources[name])

    def pair(self, name: str) -> MaskedPair | None:
        """The halves of a folded tensor."""
        return self._pairs.get(self.sources[name])

    def array(self, name: str) -> np.ndarray:
        """A tensor's elements."""
        pair = self.pair(name)
        if pair is not None:
            return folded(pair, self.model.get_tensor(pair.orig), self.model.get_tensor(pair.mask))
        array: np.ndarray = self.model.get_tensor(name)
        return array

    def pieces(self, name: str) -> Pieces | None:
        """A tensor's elements some at a time, where it is too large to be held and is not folded."""
        if self.pair(name) is not None or self.info(name).dense_nbytes <= _HELD:
            return None
        return self.model.get_pieces(self.sources[name])

    def stored(self, name: str) -> Any:
        """A tensor as it is stored, so that every bit of it stays."""
        return self.array(name) if self.pair(name) is not None else self.model.get_stored(self.sources[name])


def select(tensors: Tensors, structure: str, taken: Callable[[str], bool], *, named: bool) -> Selection:
    """Which tensors are pruned.

    Parameters
    ----------
    tensors : Tensors
    structure : str
        See `structures_of`; tensors that have no such structures are left alone.
    taken : callable
        Whether a tensor of that name was asked for.
    named : bool
        Whether tensors were asked for by name; otherwise only floating-point tensors with the role of weights are
        pruned (see `codec.prune.roles`), and no name of a tensor that is stored once under several names decides alone.

    Raises
    ------
    ArgumentError
        If no tensor remains.
    """
    roles: dict[str, str] = {}
    halves = {half for pair in tensors.pairs for half in (pair.orig, pair.mask)}
    for name in tensors.sources:
        info = tensors.info(name)
        found = "half" if name in halves and tensors.pair(name) is None else role(name, info.shape)
        whole = info.alias_of or name
        roles[whole] = found if roles.get(whole, "weight") == "weight" else roles[whole]
    names, left = [], {}
    for name in tensors.sources:
        info = tensors.info(name)
        known = BY_NAME.get(info.dtype)
        if not taken(name) or not (named or (known and known.is_float)):
            continue
        if known is None:
            left[name] = f"of dtype {info.dtype}"
            continue
        why = "weight" if named else roles[info.alias_of or name]
        if why != "weight":
            left[name] = why
        elif not applies(structure, info.shape):
            left[name] = f"without {structure}s"
        else:
            names.append(name)
    if not names:
        raise ArgumentError("there is no tensor to prune" + (f": {left_alone(left)}" if left else ""))
    return Selection(tuple(names), left)


_PLURALS = {"bias": "biases", "half": "halves of pairs"}


def left_alone(left: Mapping[str, str]) -> str:
    """Tensors that are left alone, by reason, in words; names are quoted, and only the first of many stand there.

    >>> left_alone({"wte": "embedding", "ln.bias": "bias", "h.bias": "bias"})
    "embeddings 'wte'; biases 'ln.bias', 'h.bias'"
    """
    groups: dict[str, list[str]] = {}
    for name, why in left.items():
        groups.setdefault(why, []).append(name)
    words = []
    for why, names in groups.items():
        shown = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        plural = why if why.startswith(("without ", "of ")) else _PLURALS.get(why, f"{why}s")
        words.append(f"{plural} {shown}")
    return "; ".join(words)


@dataclass
class Pruning:
    """What is done for each file of the output (`codec.model.checkpoint.Work`).

    Pruned tensors are packed under ``zero="value"``; the others are written as they are stored, and keep every bit.
    ``done`` collects what was pruned.
    """

    tensors: Tensors
    names: tuple[str, ...]
    sparsity: float | None
    how: Mapping[str, Any]
    allow_empty: bool = False
    dense: bool = False
    objective: str = "disk"
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    _counts: Mapping[str, int | None] | None = None

    @property
    def packs(self) -> bool | None:
        """See `Work`."""
        return None if self.dense else True

    def find_threshold(self, cap: float | None) -> None:
        """Look for one threshold over all tensors, in several passes over them; otherwise each has its own."""
        self._counts = removals(_Weights(self), self.sparsity, allow_empty=self.allow_empty, cap=cap, **self.how)

    def __call__(
        self,
        model: ModelFile,
        path: str,
        names: tuple[str, ...],
        metadata: dict[str, str],
        tick: Callable[[str], object] | None,
    ) -> None:
        sources, chosen = dict(self.tensors.of(names)), frozenset(self.names)

        def read(name: str) -> Any:
            value = self._made(name) if name in chosen else self.tensors.stored(name)
            done(name)
            return value

        def done(name: str) -> None:
            if tick:
                tick(sources[name])

        if self.dense:
            infos = [(name, self.tensors.info(name)) for name in sources]
            write_plain(path, [(name, info.dtype, info.shape) for name, info in infos], read, metadata)
            return
        plan: dict[str, Any] = {name: {"zero": "value"} for name in self.names}
        rules = Rules(self.objective, "bits", {**plan, "*": "dense"})
        with Spool(path) as spool:
            packer = Packer(rules, spool, stores_names_once(path))
            for name in sources:
                packer.add(name, self._carried(name) if name in chosen else self.tensors.stored(name))
                done(name)
            write_model(path, packer, checked_metadata(metadata))

    def request(self) -> None:
        """It always begins anew."""

    def _carried(self, name: str) -> Carried:
        """A pruned tensor that is made when it is asked for, and held by nobody: once more if it stays dense."""
        info, made = self.tensors.info(name), self._in_pieces(name)

        def bytes_of(offset: int, length: int) -> memoryview:
            if made is None:
                return memoryview(octets(self._pruned(name)).data)[offset : offset + length]
            width = made.dtype.itemsize
            return memoryview(octets(made.read(offset // width, length // width)).data)

        whole = made is None
        return Carried(
            info.dtype, info.shape, info.dense_nbytes, bytes_of, None, None, in_memory=whole, piecewise=not whole
        )

    def _made(self, name: str) -> np.ndarray | Carried:
        """A pruned tensor, to be written as it is."""
        return self._pruned(name) if self.pieces(name) is None else self._carried(name)

    def pieces(self, name: str) -> Pieces | None:
        """A tensor to be pruned in pieces, where it need not be whole."""
        single = self.how["structure"] == "element" and self.how["criterion"] != "random"
        return self.tensors.pieces(name) if single else None

    def _removals(self, name: str, weights: Any) -> int | None:
        if self._counts is not None:
            return self._counts[name]
        return removals({name: weights}, self.sparsity, allow_empty=self.allow_empty, **self.how)[name]

    def _in_pieces(self, name: str) -> Pieces | None:
        """A pruned tensor some weights at a time, where that can be done."""
        weights = self.pieces(name)
        if weights is None:
            return None
        count = self._removals(name, weights) or 0
        found = removed(weights, count)
        self._note(name, found.dtype, found.shape, count, found)
        return found

    def _pruned(self, name: str) -> np.ndarray:
        pruned = _own(self.tensors.array(name))
        count = self._removals(name, pruned)
        with naming(name):
            gone = remove(pruned, count, name=name, **self.how)
        flat = pruned.reshape(-1)
        pieces = (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
        self._note(name, pruned.dtype, pruned.shape, gone, pieces)
        return pruned

    def _note(self, name: str, dtype: np.dtype, shape: Any, gone: int, pieces: Iterable[np.ndarray]) -> None:
        element, size = element_type(dtype), prod(shape)
        zeros, negative = size, 0
        for piece in pieces:
            zeros -= int(np.count_nonzero(piece))
            if element.sign_bit:
                negative += int(np.count_nonzero(piece.view(element.unsigned) == element.sign_bit))
        self.done[name] = {
            "name": name,
            "dtype": element.name,
            "shape": list(shape),
            "weights": size,
            "removed": gone,
            "zeros": zeros,
            "negative_zeros": negative,
        }


class _Weights(Mapping[str, Any]):
    """The tensors to be pruned, each read when it is asked for."""

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning

    def __getitem__(self, name: str) -> Any:
        found = self._pruning.pieces(name)
        return self._pruning.tensors.array(name) if found is None else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._pruning.names)

    def __len__(self) -> int:
        return len(self._pruning.names)


def _own(weights: np.ndarray) -> np.ndarray:
    """The weights in memory that can be written, and in the file's form: a copy only where they are not yet."""
    return np.require(weights, element_type(weights.dtype).dtype, ["C", "W"])
