"""What was measured of a machine, as a readable file, and the times that follow from it."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from math import inf
from typing import Any, Self

from codec.costs.frames import frame_bytes
from codec.costs.machine.model import ALIGNMENT, BATCHES, Row, by, rate, row_of, tuples
from codec.dtypes import BY_NAME, ElementType
from codec.encoding.sizes import encoded_nbytes
from codec.errors import ArgumentError
from codec.kernels import info
from codec.matrix import TensorSpec, is_int
from codec.model.atomic import write_atomic
from codec.products import batch_tile
from codec.statistics import TensorStats

PRODUCTS = ("matvec", "matmul", "linear")
OPERATIONS = (*PRODUCTS, "decode", "encode")
TABLES = ("products", "dense", "decode", "encode")
_VERSION = 2
# Bytes of weights, times the columns up to 8, from which on a product takes more threads (native/product/multiply.cpp).
_WORTH_TWO = 70 << 10
_NEAR = 0.7  # of the best speed of reading: what is slower comes from memory
Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Prediction:
    """A predicted time.

    Attributes
    ----------
    seconds : float
    low, high : float
        Between these lie nine of ten of the times that were measured to check the profile.
    bound_by : {"bytes", "look-ups", "arithmetic", "overhead"}
        What the operation waits for: memory, finding and expanding the non-zeros, multiply-adds, or the call itself.
    """

    seconds: float
    low: float
    high: float
    bound_by: str


@dataclass(frozen=True)
class MachineProfile:
    """What `profile_machine` measured; it predicts times, and is a readable JSON file.

    Attributes
    ----------
    cpu, kernel, threads
        The processor, the instruction set, and how many threads there are.
    bandwidth : tuple of (bytes, bytes per second)
        Reading a buffer of so many bytes again and again, with one thread.
    copy : float
        Bytes per second written to memory.
    speedup, bandwidth_gain : float
        How many times as fast all threads together are where they compute, and where they read memory.
    densities : tuple
        Where kernels were measured.
    tables : mapping of str to tuple of Row
        "products" of codec, "dense" those of the dense libraries, "decode" and "encode".
    spread : (float, float)
        Shares of the predicted time between which nine of ten checks lay.
    """

    cpu: str
    kernel: str
    threads: int
    bandwidth: tuple[tuple[float, float], ...]
    copy: float
    speedup: float
    bandwidth_gain: float
    densities: tuple[float, ...]
    tables: Mapping[str, tuple[Row, ...]]
    spread: tuple[float, float] = (0.75, 1.33)

    def predict(
        self,
        operation: str,
        *,
        layout: str | None,
        shape: tuple[int, ...],
        dtype: Any,
        sparsity: float | None = None,
        stats: TensorStats | None = None,
        batch: int = 1,
        threads: int = 1,
        cold: bool = False,
        **params: Any,
    ) -> Prediction:
        """The time of an operation.

        Parameters
        ----------
        operation : {"matvec", "matmul", "linear", "decode", "encode"}
        layout : str or None
            With its parameters as keywords; None is the fastest dense library's product.
        shape, dtype
            Of the weights.
        sparsity, stats
            One of the two: a share of independent zeros, or what was counted.
        batch, threads : int
        cold : bool
            Whether the weights come from memory even where they would fit into a cache.

        Returns
        -------
        Prediction

        Raises
        ------
        ArgumentError
            For an operation, layout or dtype that was not measured.

        Examples
        --------
        >>> machine = codec.profile_machine()  # doctest: +SKIP
        >>> machine.predict("matvec", layout="sell", shape=(4096, 4096), dtype="float32", sparsity=0.9).bound_by
        ... # doctest: +SKIP
        'bytes'
        """
        if operation not in OPERATIONS:
            raise ArgumentError(f"operation={operation!r}; expected one of {', '.join(OPERATIONS)}")
        for name, value in (("batch", batch), ("threads", threads)):
            if not is_int(value) or value < 1:
                raise ArgumentError(f"{name}={value!r}; expected an int from 1 on")
        if (sparsity is None) == (stats is None):
            raise ArgumentError("expected one of sparsity= and stats=")
        spec = stats.spec if stats is not None else TensorSpec.of(dtype, shape)
        share = stats.sparsity if stats is not None else float(sparsity or 0.0)
        if operation in PRODUCTS:
            self._check_product(spec.element)
        if layout is None:
            if operation not in PRODUCTS:
                raise ArgumentError(f"layout=None is the dense libraries' product; {operation!r} needs a layout")
            return self._library(spec, 1 if operation == "matvec" else batch, threads, cold)
        if stats is not None:
            nbytes = encoded_nbytes(layout, shape, dtype, stats=stats, entropy="none", **params)
        else:
            nbytes = int(frame_bytes(layout, spec.shape, spec.element, spec.row_dims, params)(share))
        if operation in PRODUCTS:
            columns = 1 if operation == "matvec" else batch
            return self._product(layout, params, spec, 1 - share, nbytes, columns, threads, cold)
        return self._whole(operation, layout, params, spec, 1 - share, nbytes, threads)

    # -- what a plan asks (codec.costs.options.Clock) ------------------------------------------------------------------

    def multiplies(self, element: ElementType) -> bool:
        """Whether products of weights of this dtype with float32 or float64 are predicted: those that round nothing."""
        return element.is_float or element.width <= 2

    def executed(self) -> list[tuple[str, dict[str, Any]]]:
        """The layouts whose products were measured, with their parameters."""
        first = self.tables["products"]
        return [(row.layout, dict(row.params)) for row in first if row.dtype == first[0].dtype]

    def product_seconds(
        self, layout: str, params: Mapping[str, Any], spec: TensorSpec, nnz: int, nbytes: int, batch: int
    ) -> float:
        """Seconds of a product with a tensor that stores so many entries in so many bytes."""
        self._check_product(spec.element)
        return self._product(layout, params, spec, nnz / max(1, spec.grid.size), nbytes, batch, 1, False).seconds

    def dense_seconds(self, spec: TensorSpec, batch: int) -> float:
        """Seconds of the fastest dense library's product."""
        self._check_product(spec.element)
        return self._library(spec, batch, 1, False).seconds

    def _check_product(self, element: ElementType) -> None:
        if not self.multiplies(element):
            raise ArgumentError(
                f"products of {element.dtype} weights were not measured; expected floats, or ints of 8 or 16 bits"
            )

    # -- the model -----------------------------------------------------------------------------------------------------

    def _product(
        self,
        layout: str,
        params: Mapping[str, Any],
        spec: TensorSpec,
        density: float,
        nbytes: int,
        batch: int,
        threads: int,
        cold: bool,
    ) -> Prediction:
        row = self._row("products", layout, params, spec.element)
        grid, threads = spec.grid, threads if nbytes * min(batch, 8) >= _WORTH_TWO else 1
        tile = batch_tile(max(4, spec.element.width if spec.element.is_float else 4) * grid.cols, batch)
        passes = [tile] * (batch // tile) + ([batch % tile] if batch % tile else [])
        compute = sum(row.seconds(grid.rows, grid.cols, density, b, self.densities) for b in passes)
        macs = grid.size * density * batch / self._peak
        fixed = sum(by(b, row.fixed) for b in passes)
        return self._timed(compute, nbytes, cold, macs, fixed, threads, len(passes))

    def _library(self, spec: TensorSpec, batch: int, threads: int, cold: bool) -> Prediction:
        grid, best = spec.grid, None
        aligned = grid.cols % ALIGNMENT == 0
        for row in _alike(self.tables["dense"], spec.element):
            if row.params["aligned"] != aligned:
                continue
            compute = row.library_seconds(grid.rows, grid.cols, batch)
            nbytes = grid.size * int(row.params["width"])
            found = self._timed(compute, nbytes, cold, grid.size * batch / self._peak, by(batch, row.fixed), threads)
            best = found if best is None or found.seconds < best.seconds else best
        assert best is not None
        return best

    def _whole(
        self, operation: str, layout: str, params: Mapping[str, Any], spec: TensorSpec, density: float, nbytes: int,
        threads: int,
    ) -> Prediction:  # fmt: skip
        row = self._row(operation, layout, params, spec.element)
        compute = row.seconds(spec.grid.rows, spec.grid.cols, density, 1, self.densities)
        dense = spec.grid.size * spec.element.width
        if dense > self._cached:
            compute = max(compute, dense / self.copy)
        return self._timed(compute, nbytes, False, 0.0, by(1, row.fixed), threads)

    def _timed(
        self, compute: float, nbytes: float, cold: bool, macs: float, fixed: float, threads: int, passes: int = 1
    ) -> Prediction:
        """Times from the cache, and what reading so many bytes takes longer from memory, in each of so many passes."""
        compute = fixed + max(0.0, compute - fixed) / self._faster(threads)
        best = max(speed for _, speed in self.bandwidth)
        memory, cached = passes * self._reading(nbytes, threads, cold), passes * nbytes / best
        seconds = compute + max(0.0, memory - cached)
        if memory > compute:
            bound = "bytes"
        elif fixed > compute / 2:
            bound = "overhead"
        else:
            bound = "arithmetic" if macs / self._faster(threads) > compute / 2 else "look-ups"
        return Prediction(seconds, seconds * self.spread[0], seconds * self.spread[1], bound)

    def _faster(self, threads: int) -> float:
        """How many times as fast so many threads are as one."""
        used = min(threads, self.threads)
        return 1 + (self.speedup - 1) * (used - 1) / max(1, self.threads - 1)

    def _reading(self, nbytes: float, threads: int, cold: bool) -> float:
        """Seconds to read weights."""
        gain = 1 + (self.bandwidth_gain - 1) * (min(threads, self.threads) - 1) / max(1, self.threads - 1)
        held = not cold and nbytes <= self._cached
        return nbytes / ((1.0 if held else gain) * rate(inf if cold else nbytes, self.bandwidth))

    @cached_property
    def _cached(self) -> float:
        """Bytes that caches hold: the largest that were read at a speed near the best."""
        best = max(speed for _, speed in self.bandwidth)
        return max(size for size, speed in self.bandwidth if speed > _NEAR * best)

    @cached_property
    def _peak(self) -> float:
        """Multiply-adds in a second that the fastest dense library reaches with many columns."""
        least = min(each[-1] for row in self.tables["dense"] for each in row.element)
        return float(BATCHES[-1] / max(1e-12, least))

    def _row(self, table: str, layout: str, params: Mapping[str, Any], element: ElementType) -> Row:
        rows = _alike([row for row in self.tables[table] if row.layout == layout], element)
        if not rows:
            known = sorted({row.layout for row in self.tables["products"]})
            raise ArgumentError(f"layout {layout!r} was not measured; expected one of {', '.join(known)}")
        return max(rows, key=lambda row: sum(params.get(key) == value for key, value in row.params.items()))

    # -- as a file -----------------------------------------------------------------------------------------------------

    def save(self, filename: Path) -> None:
        """Write it as JSON."""
        text = json.dumps({"codec_profile": _VERSION, **asdict(self)}, indent=1)
        write_atomic(os.fsdecode(filename), iter([text.encode()]))

    @classmethod
    def load(cls, filename: Path) -> Self:
        """Read one that was saved; ArgumentError for what is none."""
        path = os.fsdecode(filename)
        with open(path, "rb") as file:
            data = file.read()
        try:
            found = json.loads(data)
            if found.pop("codec_profile") != _VERSION or set(found) != {one.name for one in fields(cls)}:
                raise ValueError("other keys than a profile has")
            found["tables"] = {name: tuple(map(row_of, found["tables"][name])) for name in TABLES}
            for key in ("bandwidth", "densities", "spread"):
                found[key] = tuples(found[key])
            made = cls(**found)
            made.dense_seconds(TensorSpec.of("float32", (64, 64)), 1)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, AssertionError) as error:
            raise ArgumentError(
                f"{path!r} is no machine profile of this version ({error}); codec config --measure writes one"
            ) from None
        return made


def _alike(rows: Sequence[Row], element: ElementType) -> list[Row]:
    """The rows of the dtype that behaves most alike: of the same kind, and nearest in width."""
    measured = [BY_NAME[name] for name in dict.fromkeys(row.dtype for row in rows)]
    alike = [one for one in measured if one.is_float == element.is_float] or measured
    chosen = min(alike, key=lambda one: (one.name != element.name, abs(one.width - element.width)), default=None)
    return [row for row in rows if chosen is not None and row.dtype == chosen.name]


def cached() -> MachineProfile | None:
    """The profile of this machine and instruction set that was cached, if there is one.

    One that was measured on another processor, in a home folder that machines share, is none.
    """
    path = cache_path()
    found = MachineProfile.load(path) if os.path.exists(path) else None
    return found if found is not None and found.cpu == this_cpu() else None


def this_cpu() -> str:
    """The name of this machine's processor."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cache_path() -> str:
    """Where `profile_machine` keeps the profile of this machine and instruction set."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(folder, "codec", f"machine-{info()['kernel']}.json")
