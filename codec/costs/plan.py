"""A plan: for each tensor of a model how it is stored, and why, as a file that people can read and edit."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Self

from codec.costs.options import named
from codec.encoding.request import EncodeRequest, check_objective
from codec.errors import ArgumentError, UnknownTensorError
from codec.matrix import is_int
from codec.model.atomic import write_atomic

_VERSION = 0
_NUMBER = re.compile(r"(?<![^._])\d+(?![^._])")
Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Choice:
    """What a plan says of one tensor.

    Attributes
    ----------
    name, dtype, shape
        The tensor; dtype is the safetensors name.
    layout, params, entropy
        What ``encode`` is asked for.
    why : str
        One line: the margin to the next best, and from which sparsity on the layout pays.
    sparsity : float or None
        Its share of zeros; None where it was not counted.
    dense_nbytes, nbytes : int
        Bytes of the dense tensor, and predicted ones of what is stored.
    seconds, dense_seconds : float or None
        Predicted times of a product, and of the fastest dense library's, where a machine was given.
    pays_from : float or None
        The sparsity from which on the layout costs less than dense, for independent zeros.
    tied_to : str or None
        The tensor with which it is stored once, so that it takes no bytes of its own.
    stored_as : {"frame", "dense"}
        "dense" keeps the tensor as it is; with entropy "none", one that comes packed becomes dense.
    options : mapping of str to int
        Bytes of every layout that was compared, by its label.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str
    params: Mapping[str, Any]
    entropy: str
    why: str
    sparsity: float | None
    dense_nbytes: int
    nbytes: int
    seconds: float | None = None
    dense_seconds: float | None = None
    pays_from: float | None = None
    tied_to: str | None = None
    stored_as: str = "frame"
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def packed(self) -> bool:
        """Whether the tensor is packed."""
        return self.stored_as == "frame"

    @property
    def label(self) -> str:
        """The layout with its parameters."""
        return named(self.layout, self.params)

    @property
    def block(self) -> str:
        """The name that it shares with the same tensor of other blocks: each number in it is a ``*``."""
        return _NUMBER.sub("*", self.name)

    @property
    def collapsed(self) -> bool:
        """Whether a layer of two dimensions or more has been pruned to nothing (layer collapse)."""
        return len(self.shape) >= 2 and self.sparsity == 1.0

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of ``encode`` that make it."""
        return {"layout": self.layout, **self.params, "entropy": self.entropy}

    @property
    def entry(self) -> str | dict[str, Any]:
        """What ``save_file`` takes for it: a frame that is to become dense needs more than the word."""
        return "dense" if not self.packed and self.entropy == "auto" else self.arguments


class Plan(Mapping[str, Any]):
    """How each tensor of a model is stored: a mapping that ``save_file(plan=)`` and ``encode_checkpoint(plan=)`` take.

    ``plan[name]`` is the arguments of ``encode``, or "dense" for a tensor that stays as it is; ``encode(a,
    **plan.arguments(name))`` executes one of them.

    Attributes
    ----------
    objective : str
        What it is for.
    choices : tuple of Choice
        What it says, tensor by tensor.
    """

    def __init__(self, objective: str, choices: Sequence[Choice]) -> None:
        self.objective = check_objective(objective)
        self.choices = tuple(choices)
        self._by_name = {choice.name: choice for choice in self.choices}
        self._entries = {choice.name: choice.entry for choice in self.choices}
        if len(self._by_name) != len(self.choices):
            raise ArgumentError("a plan names a tensor twice; expected each name once")

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.choices)

    def __repr__(self) -> str:
        return f"<Plan for {self.objective}: {len(self)} tensors, {self.nbytes} of {self.dense_nbytes} bytes>"

    def arguments(self, name: str) -> dict[str, Any]:
        """The arguments of ``encode`` for one tensor; CodecError with close names for one that it does not name."""
        return self.choice(name).arguments

    def choice(self, name: str) -> Choice:
        """What the plan says of one tensor; CodecError with close names for one that it does not name."""
        if name not in self._by_name:
            raise UnknownTensorError(name, self._by_name)
        return self._by_name[name]

    @property
    def dense_nbytes(self) -> int:
        """Bytes of all tensors, dense."""
        return sum(choice.dense_nbytes for choice in self.choices)

    @property
    def nbytes(self) -> int:
        """Predicted bytes of all tensors as planned; tied ones count once."""
        return sum(choice.nbytes for choice in self.choices if choice.tied_to is None)

    @property
    def seconds(self) -> float | None:
        """Predicted seconds of one product with each tensor of two dimensions or more; None without a machine."""
        times = [c.seconds for c in self.choices if c.seconds is not None]
        return sum(times) if times else None

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The layers that have been pruned to nothing."""
        return tuple(choice.name for choice in self.choices if choice.collapsed)

    # -- as a file -------------------------------------------------------------------------------------------------

    def save(self, filename: Path) -> None:
        """Write it as JSON that people can read and edit: the layouts and their parameters are what counts there."""
        facts = [{key: value for key, value in asdict(one).items() if value is not None} for one in self.choices]
        whole = {"codec_plan": _VERSION, "objective": self.objective, "tensors": facts}
        text = json.dumps(whole, indent=1, default=dict)
        write_atomic(os.fsdecode(filename), iter([text.encode()]))

    @classmethod
    def load(cls, filename: Path) -> Self:
        """Read one that was saved, and perhaps edited.

        Raises
        ------
        ArgumentError
            For what is no plan, and for a layout or parameter that does not exist; it names the tensor.
        OSError
            What the system says.
        """
        path = os.fsdecode(filename)
        with open(path, "rb") as file:
            data = file.read()
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{path!r} is no JSON: {error}; expected a plan as codec plan writes it") from None
        if not isinstance(found, dict) or found.get("codec_plan") != _VERSION:
            version = found.get("codec_plan") if isinstance(found, dict) else None
            raise ArgumentError(f'{path!r} has "codec_plan": {version!r}; expected {_VERSION}: plan again')
        tensors = found.get("tensors")
        if not isinstance(tensors, list):
            raise ArgumentError(f'{path!r} has no list "tensors"; expected a plan as codec plan writes it')
        return cls(
            check_objective(found.get("objective")),
            [_read(one, f"{path!r}, tensor {n}") for n, one in enumerate(tensors)],
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a string", lambda v: isinstance(v, str)),
    "dtype": ("a string", lambda v: isinstance(v, str)),
    "shape": ("a list of ints", lambda v: isinstance(v, list) and all(is_int(n) and n >= 0 for n in v)),
    "layout": ("a string", lambda v: isinstance(v, str)),
    "params": ("an object", lambda v: isinstance(v, dict)),
    "entropy": ("a string", lambda v: isinstance(v, str)),
    "why": ("a string", lambda v: isinstance(v, str)),
    "sparsity": ("a number", _is_number),
    "dense_nbytes": ("an int", lambda v: is_int(v) and v >= 0),
    "nbytes": ("an int", lambda v: is_int(v) and v >= 0),
    "seconds": ("a number", _is_number),
    "dense_seconds": ("a number", _is_number),
    "pays_from": ("a number", _is_number),
    "tied_to": ("a string", lambda v: isinstance(v, str)),
    "stored_as": ('"frame" or "dense"', lambda v: isinstance(v, str) and v in ("frame", "dense")),
    "options": ("an object of ints", lambda v: isinstance(v, dict) and all(map(is_int, v.values()))),
}
# What somebody who writes a plan by hand may leave out.
_DEFAULTS: dict[str, Any] = {
    "dtype": "", "shape": [], "params": {}, "entropy": "auto", "why": "as the plan's file says", "sparsity": None,
    "dense_nbytes": 0, "nbytes": 0,
}  # fmt: skip


def _read(entry: Any, where: str) -> Choice:
    """One tensor of a plan's file, proved; its layout and parameters are those of a layout that exists."""
    if not isinstance(entry, dict):
        raise ArgumentError(f"{where} is {entry!r}; expected an object")
    known = [one.name for one in fields(Choice)]
    if unknown := sorted(set(entry) - set(known)):
        raise ArgumentError(f"{where} has a key {unknown[0]!r}; expected only {', '.join(known)}")
    whole = {**_DEFAULTS, "stored_as": "dense" if entry.get("layout") == "dense" else "frame", **entry}
    for key, value in whole.items():
        expected, fits = _KINDS[key]
        if not fits(value) and not (value is None and key in _DEFAULTS and key not in entry):
            raise ArgumentError(f"{where} has {key}={value!r}; expected {expected}")
    for key in ("name", "layout"):
        if key not in whole:
            raise ArgumentError(f"{where} has no {key!r}; expected one")
    params = {key: tuple(v) if isinstance(v, list) else v for key, v in whole["params"].items()}
    try:
        EncodeRequest.of(whole["layout"], params, "disk", whole["entropy"])
    except ArgumentError as error:
        raise ArgumentError(f"{where}, {whole['name']!r}: {error}") from None
    return Choice(**{**whole, "params": params, "shape": tuple(whole["shape"])})


# -- rules ---------------------------------------------------------------------------------------------------------


def check_rules(rules: Any) -> list[tuple[str, dict[str, Any]]]:
    """Rules as pairs of a pattern and arguments of ``encode``; ArgumentError for any other."""
    pairs = list(rules.items()) if isinstance(rules, Mapping) else list(rules)
    checked = []
    for rule in pairs:
        if not (isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)):
            raise ArgumentError(f"rule {rule!r}; expected a pattern and a layout, or arguments of encode in a dict")
        pattern, entry = rule
        if not isinstance(entry, str | Mapping) or (isinstance(entry, Mapping) and "layout" not in entry):
            raise ArgumentError(f"rule for {pattern!r} gives {entry!r}; expected a layout, or a dict with one")
        arguments = {"layout": entry} if isinstance(entry, str) else dict(entry)
        params = {key: value for key, value in arguments.items() if key not in ("layout", "entropy")}
        EncodeRequest.of(arguments["layout"], params, "disk", arguments.get("entropy", "auto"))
        checked.append((pattern, arguments))
    return checked


def refuse_idle(rules: Sequence[tuple[str, dict[str, Any]]], names: Sequence[str]) -> None:
    """ArgumentError for a rule that fits no tensor: nothing would come of it, and nobody would notice."""
    for pattern, _ in rules:
        if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
            near = get_close_matches(pattern, names, n=3)
            raise ArgumentError(
                f"the rule for {pattern!r} fits no tensor" + (f"; close: {', '.join(near)}" if near else "")
            )


def rule_for(name: str, rules: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]] | None:
    """The rule of a tensor: that of its own name, or the first whose pattern fits."""
    exact = next((rule for rule in rules if rule[0] == name), None)
    return exact or next((rule for rule in rules if fnmatchcase(name, rule[0])), None)
