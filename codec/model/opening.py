"""Opening models: safe_open, load_file, and load for the bytes of a file."""

import os
from typing import Any

from codec.errors import ArgumentError, FormatError
from codec.model.disk import RawBytes, open_path
from codec.model.file import OpenFile
from codec.model.reader import ModelFile, Origin
from codec.model.shards import find_model, open_shards, opened, read_shard_index

_FRAMEWORKS = {"np": "np", "numpy": "np", "pt": "pt", "torch": "pt"}

Path = str | os.PathLike[str]


def safe_open(filename: Path, framework: str = "np", device: Any = "cpu", *, mmap: bool = False) -> ModelFile:
    """Open a model file, a sharded model or a plain safetensors file, and read nothing of its tensors yet.

    Parameters
    ----------
    filename : path
        A .safetensors file; the ``*.safetensors.index.json`` of a sharded model (or ``*.index.VARIANT.json``); or a
        folder that holds exactly one such index, or else exactly one .safetensors file. Shards are regular files in the
        index's folder; links are not followed, but for those of the Hugging Face cache.
    framework : {"np", "pt"}
        What get_tensor and get_slice give: NumPy arrays or torch tensors.
    device : {"cpu", None}
        Where tensors are read to: always into the memory of the CPU, from where ``tensor.to(device)`` moves them. Its
        other names ("cpu:0", torch.device("cpu")) are taken too.
    mmap : bool
        Map the file instead of reading it: arrays and packed tensors then view it, read-only, without a copy. Only for
        files that nobody changes: if another process truncates a mapped file, the operating system ends this one
        (SIGBUS), and no checksum covers what is changed after it was checked. Frames that another tool moved off
        64-byte boundaries are read after all.

    Returns
    -------
    ModelFile
        With keys(), metadata(), info(name), get_tensor(name), get_packed(name), get_slice(name), verify() and close();
        also a context manager. It may be pickled and copied, which opens the same file again.

    Raises
    ------
    FormatError
        The file is not what section 8 of the format says; ChecksumError if its header or index is damaged.
    ArgumentError
        A folder holds no model or several, or the framework or device is none of those.

    Examples
    --------
    >>> with safe_open("model.safetensors") as model:  # doctest: +SKIP
    ...     rows = model.get_slice("lm_head.weight")[1000:1064]
    """
    if framework not in _FRAMEWORKS:
        raise ArgumentError(f"framework {framework!r}; expected one of {', '.join(map(repr, _FRAMEWORKS))}")
    _check_device(device)
    if _FRAMEWORKS[framework] == "pt":
        import torch  # noqa: F401  # absent: say so now, not at the first tensor
    return open_model(os.fsdecode(filename), _FRAMEWORKS[framework], mmap)


def open_model(
    path: str, framework: str = "np", mmap: bool = False, broken: dict[str, Exception] | None = None
) -> ModelFile:
    """safe_open with its arguments checked; with ``broken`` that takes shards that cannot be opened, and their errors.

    Without a single shard that can be opened the model has no tensors.
    """
    found = find_model(path)
    if found.endswith(".json"):
        index = read_shard_index(found)
        files, rest = open_shards(index, mmap, broken), index.rest
    else:
        files, rest = [opened(open_path(found, use_mmap=mmap))], None
    try:
        return ModelFile(files, Origin(found, framework, mmap, rest, _reopened))
    except BaseException:
        _close(files)
        raise


def _reopened(path: str, framework: str, mmap: bool, prints: tuple[str, ...]) -> ModelFile:
    """The model that a copy of an open one stands for, unless another file lies there meanwhile."""
    model = open_model(path, framework, mmap)
    if tuple(file.fingerprint() for file in model.files) != prints:
        model.close()
        raise FormatError(f"{path!r} has changed since the model was opened: open it again by its path")
    return model


def load_file(
    filename: Path, device: Any = "cpu", *, packed: bool = False, objective: str | None = None
) -> dict[str, Any]:
    """All tensors of a model, whatever safe_open opens.

    Parameters
    ----------
    filename : path
        As for safe_open.
    device : {"cpu"}
        As for safe_open.
    packed : bool
        Give PackedTensors instead of arrays; tensors stored as themselves come in layout "dense".
    objective : {"disk", "memory", "speed"}, optional
        With ``packed=True``: the layout is chosen anew for this, such as "speed" for a file that was made for "disk".

    Returns
    -------
    dict of str to ndarray or PackedTensor
        Names that stand for one stored tensor (tied weights) give the same object.

    Raises
    ------
    FormatError, ArgumentError
        As safe_open; and ArgumentError for a tensor of a dtype that NumPy has no arrays of (4 and 6 bits).

    Examples
    --------
    >>> weights = load_file("model.safetensors", packed=True, objective="speed")  # doctest: +SKIP
    """
    _check_objective(objective, packed)
    with safe_open(filename, device=device) as model:
        return _all(model, packed, objective)


def load(data: bytes | bytearray | memoryview, *, packed: bool = False, objective: str | None = None) -> dict[str, Any]:
    """All tensors of the bytes of a model file, or of a plain safetensors file.

    Parameters
    ----------
    data : bytes-like
        What save returned, or what is in a file. Nothing of the result views it.
    packed, objective
        As for load_file.

    Returns
    -------
    dict of str to ndarray or PackedTensor

    Raises
    ------
    FormatError, ArgumentError
        As load_file.

    Examples
    --------
    >>> import numpy as np
    >>> load(codec.save({"w": np.eye(3)}))["w"].sum()
    np.float64(3.0)
    """
    _check_objective(objective, packed)
    model = ModelFile([opened(RawBytes(data))], Origin("<bytes>", "np", False, None, _reopened))
    return _all(model, packed, objective)


def _all(model: ModelFile, packed: bool, objective: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in model:
        alias = model.info(name).alias_of
        if alias is not None:
            found[name] = found[alias]
        else:
            found[name] = model.get_packed(name, objective) if packed else model.get_tensor(name)
    return found


def _check_objective(objective: str | None, packed: bool) -> None:
    if objective is not None and not packed:
        raise ArgumentError("objective chooses layouts, which arrays do not have: give packed=True with it")


def _check_device(device: Any) -> None:
    if device is not None and str(device) not in ("cpu", "cpu:0"):
        shown = device if isinstance(device, int) else str(device)
        raise ArgumentError(
            f"device={shown!r}: tensors are read into the memory of the CPU; with framework='pt', "
            f"tensor.to({shown!r}) moves one"
        )


def _close(files: list[OpenFile]) -> None:
    for file in files:
        file.raw.close()
