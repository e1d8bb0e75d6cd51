"""What the verbs that write models share: which tensors they take, where the result goes, and what was written."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click
import numpy as np

from codec.cli.output import Progress, refuse_overwrite, source
from codec.cli.table import AS_ITSELF
from codec.errors import ArgumentError
from codec.kernels import threadpool_limits
from codec.model import ModelFile, TensorInfo, safe_open
from codec.model.checkpoint import CheckpointReport, Tick, Work, run
from codec.model.journal import Journal
from codec.model.output import Output, companions, output_of
from codec.model.shards import SUFFIX
from codec.tensor import encode
from codec.units import counted

Verb = TypeVar("Verb", bound=Callable[..., Any])
Read = Callable[[str], Any]  # a tensor's name -> what is to be written of it


def choice(name: str, values: Sequence[str], what: str) -> Callable[[Verb], Verb]:
    """An option that takes one of `values`; the first, if it is not given."""
    return click.option(name, type=click.Choice(values), default=values[0], show_default=True, help=what)


param_option = click.option(
    "--param",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the layout, such as bits=4; may be repeated.",
)


def layout_params(layout: str, given: Sequence[str], entropy: str | None = None) -> dict[str, Any]:
    """A layout's parameters from the command line: whole numbers, sizes as 4x4 or allx1, and words.

    Status 2 for parameters that the layout has not, whatever the tensor.
    """
    if given and layout == "auto":
        raise click.UsageError(f"--param {given[0]} is a layout's: name that with --layout")
    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not (name and sign and value) or name in found:
            raise click.UsageError(f"--param {text!r}; expected NAME=VALUE, each name once")
        parts: list[str | int] = [int(p) if re.fullmatch(r"[0-9]{1,9}", p) else p for p in value.split("x")]
        size = all(isinstance(part, int) for part in parts[1:]) and (parts[0] == "all" or isinstance(parts[0], int))
        found[name] = value if not size else tuple(parts) if len(parts) > 1 else parts[0]
    if layout != "auto" and (found or entropy):
        _check_layout(layout, {**found, **({"entropy": entropy} if entropy else {})})
    return found


def _check_layout(layout: str, arguments: dict[str, Any]) -> None:
    """Encode nothing with them; that fails for what no tensor could be encoded with."""
    try:
        encode(np.zeros((0, 0), np.float32), layout=layout, **arguments)
    except ArgumentError as error:
        raise click.UsageError(f"--layout {layout}: {error}") from None


def chosen(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a verb takes a tensor: --exclude goes before --include, and a full name before patterns."""
    if name in exclude or name in include:
        return name not in exclude
    if any(fnmatchcase(name, pattern) for pattern in exclude):
        return False
    return not include or any(fnmatchcase(name, pattern) for pattern in include)


def check_patterns(names: Iterable[str], include: Sequence[str], exclude: Sequence[str], quiet: bool) -> None:
    """Status 2 for an --include that no tensor fits, and a word of an --exclude: nobody would notice a wrong name."""
    known = list(dict.fromkeys(names))

    def unmatched(pattern: str) -> str | None:
        if pattern in known or any(fnmatchcase(name, pattern) for name in known):
            return None
        near = get_close_matches(pattern, known, n=2) or known[:2]
        return f"{pattern!r}: no tensor has such a name; there are {few(near)}{' ...' * (len(known) > len(near))}"

    for pattern in include:
        if words := unmatched(pattern):
            raise click.UsageError(f"--include {words}")
    for pattern in exclude:
        if words := unmatched(pattern):
            say(f"--exclude {words}", quiet)


# Where the result goes.


def places(verb: Verb) -> Verb:
    """SRC and DST, in this order for every verb that writes a model; -o is another way to give DST."""

    @click.argument("src", type=source)
    @click.argument("dst", type=click.Path(), required=False)
    @click.option("-o", "--output", type=click.Path(), help="Another way to give DST.")
    @wraps(verb)
    def with_both(dst: str | None, output: str | None, **options: Any) -> Any:
        if "" in (dst, output):
            raise click.UsageError("'' names no file")
        if dst is not None and output is not None:
            raise click.UsageError(f"DST {dst!r} and --output {output!r}: give one of them")
        return verb(dst=output if dst is None else dst, **options)

    return with_both  # type: ignore[return-value]


def default_target(src: Path, word: str) -> str:
    """DST where none was given: beside SRC, with a word in its name, and without another such word."""
    folder = src.is_dir()
    path = src.resolve() if folder else src
    if path.name.endswith(".json"):
        raise click.UsageError("give DST: a second index beside the source's would leave no one to tell which to take")
    suffix = SUFFIX if path.name.endswith(SUFFIX) and not folder else ""
    stem = path.name.removesuffix(suffix).removesuffix(".codec").removesuffix(".dense")
    return str(path.with_name(f"{stem}.{word}{suffix if folder else SUFFIX}"))


def target_of(model: ModelFile, src: Path, dst: str, force: bool, work: Work | None = None) -> Output:
    """The files to write for DST; status 2 if that makes no sense, or something is there already.

    What an earlier run of the same work has left is not refused: the work goes on there.
    """
    try:
        output = output_of(model, str(src), dst, work.packs if work is not None else None)
        output.check()
    except ArgumentError as error:
        raise click.UsageError(str(error)) from None
    check_folder(output)
    if work is None or not Journal(model, output, work.request()).finished():
        along = [os.path.join(output.folder or "", name) for name in companions(output)[0]]
        refuse_overwrite([Path(path) for path in [*output.paths, *along, *output.stale()]], force)
    return output


def check_folder(output: Output) -> None:
    """Status 2 if there is no folder to write into, or to make one in."""
    folder = os.path.dirname(output.paths[-1]) or "."
    parent = os.path.dirname(os.path.abspath(folder)) if output.folder else folder
    if not os.path.isdir(folder) and not os.path.isdir(parent):
        raise click.UsageError(f"the folder {parent!r} does not exist: create it first")


# Writing.


class Tensors(Mapping[str, Any]):
    """Tensors of an open model, each made by ``read`` when it is asked for."""

    def __init__(self, model: ModelFile, names: Iterable[str], read: Read) -> None:
        self.model, self._names, self._read = model, tuple(names), read

    def __getitem__(self, name: str) -> Any:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class _Verb:
    """A verb's work on each file, in this process."""

    read: Read
    write: Callable[[Path, Tensors, dict[str, str]], None]
    packs: ClassVar[bool | None] = None

    def __call__(
        self, model: ModelFile, path: str, names: tuple[str, ...], metadata: dict[str, str], tick: Tick | None
    ) -> None:
        def read(name: str) -> Any:
            tensor = self.read(name)
            if tick:
                tick(name)
            return tensor

        self.write(Path(path), Tensors(model, names, read), metadata)

    def request(self) -> None:
        """It always begins anew."""


def write_all(
    model: ModelFile,
    output: Output,
    read: Read,
    write: Callable[[Path, Tensors, dict[str, str]], None],
    label: str,
    threads: int | None,
    quiet: bool,
) -> CheckpointReport:
    """Write what ``read`` makes of each tensor, file by file; the source folder's other files come along."""
    return run_work(model, output, _Verb(read, write), label, threads, quiet)


def run_work(
    model: ModelFile, output: Output, work: Work, label: str, threads: int | None, quiet: bool
) -> CheckpointReport:
    """Do some work for each file of an output, with a progress bar, and say on stderr what else happened."""
    total, before = sum(model.info(name).dense_nbytes for name in model), 0
    with Progress(total, label, quiet) as bar, threadpool_limits(threads) if threads else nullcontext():

        def progress(done: int, _total: int, _name: str) -> None:
            nonlocal before
            bar.advance(done - before)
            before = done

        report = run(model, output, work, progress=progress)
    if report.resumed:
        say(f"{counted(len(report.resumed), 'file')} of {len(report.files)} had been finished by an earlier run", quiet)
    if report.left_behind:
        say(f"Left behind, as weights in another form or links: {few(report.left_behind)}", quiet)
    for key, shards in report.metadata_left_out.items():
        say(f"Left out metadata {key!r}, on which the shards do not agree: {few(shards)}", quiet)
    if report.removed:
        say(f"Removed shards of an earlier model: {few(report.removed)}", quiet)
    return report


def say(message: str, quiet: bool) -> None:
    """A message for people; names in it are quoted, so that none can act on the terminal."""
    if not quiet:
        click.echo(message, err=True)


def few(names: Sequence[str]) -> str:
    """The first names, quoted, and how many more there are."""
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


# What was written.


def written(output: Output, before: Mapping[str, int]) -> dict[str, Any]:
    """What the files hold, by layout and in all; ``before`` are the bytes in the source, by tensor.

    A tensor that is stored once under several names counts once after, and for each name before.
    """
    with safe_open(output.paths[-1]) as model:
        infos = [model.info(name) for name in model]
    groups: dict[str, list[TensorInfo]] = {}
    for info in infos:
        groups.setdefault(info.layout if info.stored_as == "frame" else AS_ITSELF, []).append(info)
    after, whole = sum(info.nbytes for info in infos), sum(before.values())
    return {
        "tensors": len(infos),
        "packed": sum(info.stored_as == "frame" and info.alias_of is None for info in infos),
        "tied": sum(info.alias_of is not None for info in infos),
        "bytes_before": whole,
        "bytes_after": after,
        "ratio": whole / after if after else 1.0,
        "file_bytes": sum(os.path.getsize(path) for path in output.files),
        "layouts": {
            kind: {
                "tensors": len(group),
                "bytes_before": sum(before[info.name] for info in group),
                "bytes_after": sum(info.nbytes for info in group),
            }
            for kind, group in sorted(groups.items())
        },
    }
