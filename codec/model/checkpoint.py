"""Whole checkpoints: every file of a model packed or unpacked, one tensor in memory at a time, resumable.

    output_of -> the other files come along -> shard by shard -> the index of shards -> old shards are removed

A folder or index becomes a model only with its last file, the index. Until then a journal beside it says which shards
are finished, and from what.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from codec.interop.folding import folded, masked_pairs, unfolded_words
from codec.model.atomic import Spool
from codec.model.carried import Carried, carry
from codec.model.disk import open_path
from codec.model.huggingface import stores_names_once
from codec.model.journal import Journal, digest
from codec.model.opening import open_model
from codec.model.output import Output, companions, copy_companions, index_aside, output_of
from codec.model.packing import Packer, Rules
from codec.model.reader import ModelFile
from codec.model.shards import opened, write_shard_index
from codec.model.writer import Path, Progress, checked_metadata, write_model, write_plain


class Work(Protocol):
    """What is done for each file of the output; it can be sent to another process.

    ``packs``: whether it packs weights, or unpacks them; None where they stay what they were.
    """

    @property
    def packs(self) -> bool | None:
        """See above."""

    def __call__(
        self, model: ModelFile, path: str, names: tuple[str, ...], metadata: dict[str, str], tick: "Tick | None"
    ) -> None:
        """Write one file with what becomes of these tensors; ``tick(name)`` follows each."""

    def request(self) -> str | None:
        """What tells this work from other work on the same files; None where nothing tells."""


Tick = Callable[[str], object]


@dataclass(frozen=True)
class CheckpointReport:
    """What was done.

    ``files`` are the model's files, ``index`` that of the shards (None for a single file), ``resumed`` those files that
    were finished before, ``copied`` and ``left_behind`` the source folder's other files (those left behind hold weights
    in another form), ``removed`` shards of an earlier model. ``metadata_left_out`` has metadata keys that shards do
    not agree on, and that the one file made of them lacks, each with the names of those shards.
    """

    files: tuple[str, ...]
    index: str | None
    resumed: tuple[str, ...]
    copied: tuple[str, ...]
    left_behind: tuple[str, ...]
    removed: tuple[str, ...]
    metadata_left_out: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Encode:
    """Pack tensors; ``fold`` multiplies those that lie beside their pruning masks."""

    objective: str = "disk"
    plan: Mapping[str, Any] | None = None
    zero: str | None = None
    fold: bool = False
    packs: ClassVar[bool] = True

    def __call__(
        self, model: ModelFile, path: str, names: tuple[str, ...], metadata: dict[str, str], tick: Tick | None
    ) -> None:
        rules = Rules(self.objective, self.zero, self.plan)
        pairs = masked_pairs(model.keys(), beside=True) if self.fold else []
        masks, halves = {pair.mask for pair in pairs}, {pair.orig: pair for pair in pairs}
        with Spool(path) as spool:
            packer = Packer(rules, spool, stores_names_once(path))
            for name in names:
                pair = halves.get(name)
                if pair is not None:
                    packer.add(pair.name, folded(pair, model.get_tensor(pair.orig), model.get_tensor(pair.mask)))
                elif name not in masks:
                    packer.add(name, *_to_encode(model, name, rules))
                if tick:
                    tick(name)
            write_model(path, packer, checked_metadata(metadata))

    def names(self, model: ModelFile) -> list[str]:
        """The names of the model's tensors, before and after they are folded."""
        pairs = masked_pairs(model.keys(), beside=True) if self.fold else []
        return [*model.keys(), *(pair.name for pair in pairs)]

    def request(self) -> str | None:
        """See Work."""
        return digest(["encode", self.objective, self.zero, self.fold, list((self.plan or {}).items())])


@dataclass(frozen=True)
class Decode:
    """Write plain safetensors files, without packed tensors and without an index."""

    packs: ClassVar[bool] = False

    def __call__(
        self, model: ModelFile, path: str, names: tuple[str, ...], metadata: dict[str, str], tick: Tick | None
    ) -> None:
        infos = [model.info(name) for name in names]

        def read(name: str) -> Any:
            if tick:
                tick(name)
            return model.get_stored(name)

        write_plain(path, [(info.name, info.dtype, info.shape) for info in infos], read, metadata)

    def request(self) -> str | None:
        """See Work."""
        return digest(["decode"])


def encode_checkpoint(
    src: Path,
    dst: Path,
    *,
    objective: str = "disk",
    plan: Mapping[str, Any] | None = None,
    zero: str | None = None,
    fold: bool = False,
    executor: Any = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> CheckpointReport:
    """Pack a whole checkpoint: a folder as Hugging Face has them, a sharded model or one file.

    Parameters
    ----------
    src : path
        Whatever safe_open opens. One tensor is in memory at a time.
    dst : path
        For a folder a folder, which is made if it is not there: it gets the model's files under their own names, and
        the other files (config.json, tokenizers, subfolders) come along. In a folder of transformers, whose config.json
        has a model_type, packed weights are named model.codec*.safetensors, and config.json says how they are packed:
        codec.hf runs from them, and transformers alone finds no weights. What config.json still says of formats that
        compressed-tensors removed is left out. Weights in other forms (.bin, .pt, .onnx, ...) and hidden files stay
        behind. Or a name that ends in .safetensors.index.json, for a sharded model with shards
        beside it; or the name of one file, which gets the metadata that all shards agree on. Files that are there are
        replaced. Shards of the same name and another number are removed once the new index is in place.
    objective, plan
        As for save_file. Tensors of dtypes that cannot be packed are copied.
    zero : {"value", "bits"}, optional
        As for save_file. By default tensors that are packed already keep the rule of their frame, and others are packed
        under "value".
    fold : bool
        Multiply tensors by the pruning masks beside them, as `codec.interop.fold_masks` does, and store the product.
    executor : concurrent.futures.Executor or the like, optional
        Has ``submit(function, *arguments)``, whose result has ``result()``: the shards are packed by it side by side.
    resume : bool
        Skip shards that an earlier call with the same arguments has finished, if source and result are unchanged.
    progress : callable, optional
        Called with (bytes done, bytes in all, name) after each tensor, or with an executor after each file.

    Returns
    -------
    CheckpointReport
        The files written, skipped, copied, left behind and removed.

    Raises
    ------
    FormatError, ArgumentError, OSError
        As safe_open and save_file; and ArgumentError if ``dst`` is the source's folder or holds another model.

    Warns
    -----
    UserWarning
        As save_file.

    Examples
    --------
    >>> codec.encode_checkpoint("Llama-pruned", "Llama-packed")  # doctest: +SKIP
    """
    work = Encode(objective, plan, zero, fold)
    rules = Rules(objective, zero, plan)  # refuses what it cannot use, before anything is read
    source, target = os.fsdecode(src), os.fsdecode(dst)
    with open_model(source) as model:
        rules.check_names(work.names(model))
        words = None if fold else unfolded_words(masked_pairs(model.keys()))
        if words:
            warnings.warn(words, stacklevel=2)
        return run(model, output_of(model, source, target, work.packs), work, executor, resume, progress)


def decode_checkpoint(
    src: Path, dst: Path, *, executor: Any = None, resume: bool = True, progress: Progress | None = None
) -> CheckpointReport:
    """Unpack a whole checkpoint into plain safetensors files; the way back from encode_checkpoint.

    Parameters
    ----------
    src, dst, executor, resume, progress
        As for encode_checkpoint. Tensors that are stored once under several names are written under each of them.

    Returns
    -------
    CheckpointReport

    Raises
    ------
    FormatError, ArgumentError, OSError
        As encode_checkpoint.

    Examples
    --------
    >>> codec.decode_checkpoint("Llama-packed", "Llama-dense")  # doctest: +SKIP
    """
    source, target = os.fsdecode(src), os.fsdecode(dst)
    with open_model(source) as model:
        return run(model, output_of(model, source, target, Decode.packs), Decode(), executor, resume, progress)


def run(
    model: ModelFile,
    output: Output,
    work: Work,
    executor: Any = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> CheckpointReport:
    """Write an output: companions, files, index; see encode_checkpoint for what the last three arguments mean."""
    output.check()
    if output.folder is not None:
        os.makedirs(output.folder, exist_ok=True)
    along, behind = companions(output)
    if along:
        copy_companions(output, along)
    journal = Journal(model, output, work.request() if resume else None)
    resumed = journal.finished()
    sizes = {name: model.info(name).dense_nbytes for name in model}
    total = sum(sizes.values())
    done = sum(sizes[name] for path in resumed for name in output.files[path])

    def tick(name: str, nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress:
            progress(done, total, name)

    todo = {path: names for path, names in output.files.items() if path not in resumed}
    with index_aside(output, todo):
        if executor is None:
            for path, names in todo.items():
                work(model, path, names, output.metadata[path], lambda name: tick(name, sizes[name]))
                journal.add(path)
        else:
            for path, names in _side_by_side(executor, model, output, work, todo):
                journal.add(path)
                tick(os.path.basename(path), sum(sizes[name] for name in names))
        removed = _finish(model, output)
    journal.remove()
    return CheckpointReport(
        tuple(output.files),
        output.index,
        tuple(resumed),
        tuple(along),
        tuple(behind),
        tuple(removed),
        _metadata_left_out(model, output),
    )


def _side_by_side(
    executor: Any, model: ModelFile, output: Output, work: Work, todo: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Files in their order, each when it is finished."""
    futures = [
        (path, names, executor.submit(work, model, path, names, output.metadata[path], None))
        for path, names in todo.items()
    ]
    try:
        for path, names, future in futures:
            future.result()
            yield path, names
    except BaseException:
        for _, _, future in futures:
            if hasattr(future, "cancel"):
                future.cancel()
        raise


def _finish(model: ModelFile, output: Output) -> list[str]:
    """The index of the shards, and then nothing of an older model beside it."""
    if output.index is None:
        return []
    weight_map, total = {}, 0
    for path in output.files:
        file = opened(open_path(path))
        weight_map.update(dict.fromkeys(file.records, os.path.basename(path)))
        total += sum(record.nbytes for record in file.records.values())
        file.raw.close()
    write_shard_index(output.index, weight_map, model.origin.index or {}, total)
    removed = output.stale()
    for path in removed:
        os.unlink(path)
    return removed


def _metadata_left_out(model: ModelFile, output: Output) -> dict[str, tuple[str, ...]]:
    """Keys that shards had and the one file made of them has not, or with another value; with the shards' names."""
    lost: dict[str, tuple[str, ...]] = {}
    if len(model.files) < 2 or output.index is not None:
        return lost
    (path,) = output.files
    made = opened(open_path(path))
    made.raw.close()
    for file in model.files:
        for key, value in file.metadata.items():
            if made.metadata.get(key) != value:
                lost[key] = (*lost.get(key, ()), os.path.basename(file.raw.path))
    return lost


def _to_encode(model: ModelFile, name: str, rules: Rules) -> tuple[Any, str]:
    """A tensor to pack, and the zero rule that it has: of a packed one its array, unless it is to stay as it is."""
    stored = model.get_stored(name)
    if isinstance(stored, Carried):
        return stored, "value"
    if stays(rules, name):
        return stored, stored.zero
    # Its place in the source tells tied tensors also where they are not packed any more.
    place = ("frame", id(model), model.info(name).alias_of or name)
    return replace(carry(model.get_tensor(name)), place=place, owner=model), stored.zero


def stays(rules: Rules, name: str) -> bool:
    """Whether a packed tensor is written as it is stored, and not packed anew."""
    return rules.arguments(name) == {"layout": "dense"}
