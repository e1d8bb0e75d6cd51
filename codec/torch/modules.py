"""SparseLinear, SparseConv1D and SparseConv2d: layers that hold one packed weight, and nothing dense.

The weight is a buffer of bytes, one frame, under the name that the dense layer gives its parameter: so a state_dict has
the same names, a model file holds the same bytes, and ties between layers stay ties between tensors.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn.utils import parametrize

from codec.arraylike import to_torch
from codec.errors import ArgumentError, CodecError
from codec.interop.folding import MaskedPair, folded
from codec.packed import PackedTensor
from codec.tensor import encode
from codec.torch.frames import buffer_of, packed_of
from codec.torch.operators import conv2d, product
from codec.torch.transposing import transpose


class SparseLayer(nn.Module, ABC):
    """What the layers share: the packed weight, how it is made and loaded, and how it is shown."""

    weight: torch.Tensor
    bias: nn.Parameter | None
    # The arguments and attributes that this class and the dense one have.
    geometry: ClassVar[tuple[str, ...]]
    # Whether the dense layer's weight, which is what files hold, is the transpose of what is packed here.
    transposed: ClassVar[bool] = False
    # What model.to(dtype) and the like would have made of a dense weight; None: what it was packed with.
    _moved: torch.dtype | None = None

    def _hold(self, outputs: int, bias: bool, nbytes: int, device: Any, dtype: Any) -> None:
        """Register the weight, of ``nbytes`` bytes without a content, and the bias."""
        self.register_buffer("weight", torch.zeros(nbytes, dtype=torch.uint8, device=device))
        own = nn.Parameter(torch.zeros(outputs, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", own)

    @classmethod
    @abstractmethod
    def dense(cls) -> type[nn.Module] | None:
        """The dense class that this one stands for; None where its library is not imported, so that no model has it."""

    @classmethod
    def like(cls, layer: Any, *, bias: bool = True, nbytes: int = 0, device: Any = None) -> Self:
        """An empty layer of the geometry of a dense one; ``bias``: if that has one."""
        given = bias and layer.bias is not None
        dtype = layer.bias.dtype if given else None
        return cls(**_named(layer, cls.geometry), bias=given, nbytes=nbytes, device=device, dtype=dtype)

    @classmethod
    def from_dense(cls, layer: nn.Module, packed: PackedTensor | None = None, **options: Any) -> Self:
        """A layer with the weight of a dense one, packed as ``codec.encode(weight, **options)``.

        Parameters
        ----------
        layer : nn.Linear, nn.Conv2d or transformers' Conv1D
            Its bias is shared. Pruned and parametrised weights are taken as they are used.
        packed : PackedTensor, optional
            The weight, where it is packed already, of this class's `shape`.
        **options
            As for `encode`; by default ``objective="speed"``.

        Raises
        ------
        ArgumentError
            As `encode`; for a layer of another kind, a packed weight of another shape, and a weight that a hook of the
            layer computes, as that of torch.nn.utils.weight_norm.

        Examples
        --------
        >>> SparseLinear.from_dense(nn.Linear(64, 128), layout="bitmap").packed.layout
        'bitmap'
        """
        kind = cls.dense()
        if kind is None or not isinstance(layer, kind):
            raise ArgumentError(
                f"the layer is a {type(layer).__name__}; expected {cls.__name__.removeprefix('Sparse')}"
            )
        new = cls.like(layer, bias=False)
        if packed is None:
            packed = encode(cls.turned(effective(layer, "weight")), **(options or {"objective": "speed"}))
        new.hold(buffer_of(packed))
        new.bias = effective(layer, "bias")
        new.train(layer.training)
        return new

    @classmethod
    def turned(cls, weight: Any) -> Any:
        """A weight of the dense layer as it is packed here, or back."""
        return weight.T if cls.transposed else weight

    @classmethod
    def turned_shape(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that `turned` makes of one."""
        return shape[::-1] if cls.transposed else shape

    @classmethod
    def of_file(cls, packed: PackedTensor, objective: str | None, batch: int | None) -> PackedTensor:
        """What a file holds, as it is packed here: for an objective, or in the layout that it has (None)."""
        options = {"layout": packed.layout} if objective is None else {"objective": objective, "batch": batch}
        if cls.transposed:
            return transpose(packed, **options)
        return packed if objective is None else packed.to_layout(**options)

    def unpacked(self) -> Any:
        """The weight of the dense layer, as an array; errors as `packed`."""
        return self.turned(self.packed.to_dense())

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of the packed weight."""

    @property
    def packed(self) -> PackedTensor:
        """The weight; it shares the buffer's memory. Errors as `loads`, and ArgumentError on the meta device."""
        return packed_of(self.weight)

    def hold(self, weight: torch.Tensor) -> None:
        """Take a buffer as the weight, after a proof of its head; nothing is copied.

        Raises
        ------
        ArgumentError
            If it is no buffer of bytes on the CPU, or a tensor of another shape.
        FormatError, ChecksumError, VersionError
            If its bytes are not a frame.
        """
        self._check(weight)
        self.weight = weight

    def _held(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight and the bias, looked up where they stand: as attributes they take a microsecond to find."""
        try:
            return self._buffers["weight"], self._parameters["bias"]
        except KeyError:  # torch.nn.utils.prune or a parametrisation computes one
            return self.weight, self.bias

    def _check(self, weight: torch.Tensor) -> None:
        shape = packed_of(weight).shape
        if shape != self.shape:
            raise ArgumentError(f"the packed weight has shape {shape}; expected {self.shape}")

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        found = state_dict.get(f"{prefix}weight")
        if isinstance(found, torch.Tensor):
            try:
                self._check(found)
            except CodecError as error:
                error_msgs.append(f"{prefix}weight: {error}")
                return
            if found.shape != self.weight.shape:
                # Frames of one shape have different lengths. It stays the same tensor, which layers may share.
                self.weight.data = self.weight.new_empty(found.shape)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        found = {fn(torch.empty(0, dtype=dtype)).dtype for dtype in (torch.float32, torch.float64)}
        if len(found) == 1:  # all floats become this one
            (self._moved,) = found
        super()._apply(fn, recurse)
        return self

    def extra_repr(self) -> str:
        """The dense layer's, and the weight's layout, dtype, stored entries and bytes."""
        own = ", ".join(f"{name}={value!r}" for name, value in _named(self, self.geometry).items())
        own += f", bias={self.bias is not None}"
        try:
            w = self.packed
        except CodecError:
            return f"{own}, not loaded"
        return (
            f"{own}, layout={w.layout}, dtype={w.dtype}, nnz={w.nnz} ({w.sparsity:.1%} zeros), nbytes={w.nbytes} "
            f"({w.ratio:.2f} times smaller)"
        )

    def to_dense(self, weight: nn.Parameter | None = None) -> Any:
        """The dense layer, with this layer's own bias.

        Its weight is unpacked, unless it is given, in the dtype that it was packed with, or that this layer was moved
        to. Errors as `packed`.
        """
        layer = self._empty_dense()
        layer.weight = (
            nn.Parameter(to_torch(self.unpacked()).to(self._moved).contiguous()) if weight is None else weight
        )
        layer.bias = self.bias
        return layer.train(self.training)

    def _empty_dense(self) -> Any:
        """The dense layer without weights."""
        kind: Any = self.dense()
        return kind(**_named(self, self.geometry), bias=False, device="meta")


class SparseLinear(SparseLayer):
    """nn.Linear with a packed weight: ``x @ weight.T + bias`` straight from its bytes, on the CPU.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As for nn.Linear; ``dtype`` is that of the bias.
    nbytes : int
        Bytes of the weight, which is empty until it is loaded (from a state_dict it takes what length it finds).

    Notes
    -----
    The result has the input's dtype, whatever floats the weight has; sums are kept in float32, in float64 if either is
    that. Input and bias have derivatives, in reverse and in forward mode and in torch.func; the weight has none. The
    threads are torch's own where these are OpenMP's, and ``torch.set_num_threads`` bounds them.

    Examples
    --------
    >>> layer = SparseLinear.from_dense(nn.Linear(64, 128))
    >>> layer(torch.ones(3, 64)).shape
    torch.Size([3, 128])
    """

    geometry = ("in_features", "out_features")

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, nbytes: int = 0, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._hold(out_features, bias, nbytes, device, dtype)

    @classmethod
    def dense(cls) -> type[nn.Module]:
        """nn.Linear."""
        return nn.Linear  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        """(out_features, in_features)."""
        return self.out_features, self.in_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x @ weight.T + bias``, for x (..., in_features) of floats."""
        x = _autocast(x) if torch.is_autocast_enabled("cpu") else x
        return product(x, *self._held(), self.out_features, False)


class SparseConv1D(SparseLayer):
    """Conv1D of transformers, the linear layer of GPT-2 whose weight is (in, out), with a packed weight.

    Parameters
    ----------
    nf, nx : int
        Outputs and inputs, as for Conv1D.
    bias, nbytes, device, dtype
        As for `SparseLinear`.

    Notes
    -----
    The weight is packed as its transpose, (out, in): products with that are four to ten times as fast. Model files hold
    it as transformers has it, so it is packed anew when it is saved and when it is loaded, a quarter of it dense at a
    time.

    Examples
    --------
    >>> layer = SparseConv1D.from_dense(transformers.pytorch_utils.Conv1D(128, 64))  # doctest: +SKIP
    >>> layer(torch.ones(3, 64)).shape  # doctest: +SKIP
    torch.Size([3, 128])
    """

    geometry = ("nf", "nx")
    transposed = True

    def __init__(
        self, nf: int, nx: int, bias: bool = True, *, nbytes: int = 0, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self._hold(nf, bias, nbytes, device, dtype)

    @classmethod
    def dense(cls) -> type[nn.Module] | None:
        """transformers.pytorch_utils.Conv1D."""
        return getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)

    @property
    def shape(self) -> tuple[int, ...]:
        """(nf, nx): (out, in)."""
        return self.nf, self.nx

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x @ weight.T + bias`` of the packed weight, for x (..., nx) of floats."""
        x = _autocast(x) if torch.is_autocast_enabled("cpu") else x
        return product(x, *self._held(), self.nf, False)

    def _empty_dense(self) -> Any:
        from transformers.pytorch_utils import Conv1D

        with torch.device("meta"):
            return Conv1D(self.nf, self.nx)


class SparseConv2d(SparseLayer):
    """nn.Conv2d with packed filters, on the CPU; see `codec.conv2d` for what it takes.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        As for nn.Conv2d; ``dtype`` is that of the bias.
    nbytes : int
        As for `SparseLinear`.

    Examples
    --------
    >>> layer = SparseConv2d.from_dense(nn.Conv2d(16, 32, 3, padding=1))
    >>> layer(torch.ones(1, 16, 8, 8)).shape
    torch.Size([1, 32, 8, 8])
    """

    geometry = (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
    )  # fmt: skip

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", *, nbytes: int = 0,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        # torch checks the numbers, and completes them.
        layer = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, False, padding_mode, "meta"
        )
        for name in self.geometry:
            setattr(self, name, getattr(layer, name))
        around = tuple(layer._reversed_padding_repeated_twice)
        # The operator pads with zeros, as many on both sides; what else there is goes around the input before it.
        self._own_padding = (0, 0)
        self._padded_before: tuple[int, ...] | None = around
        if padding_mode == "zeros" and around[0] == around[1] and around[2] == around[3]:
            self._own_padding, self._padded_before = (around[2], around[0]), None
        self._hold(out_channels, bias, nbytes, device, dtype)

    @classmethod
    def dense(cls) -> type[nn.Module]:
        """nn.Conv2d."""
        return nn.Conv2d  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        """(out_channels, in_channels / groups, kernel height, kernel width)."""
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution, for x (images, in_channels, height, width) of floats, or without images."""
        if self._padded_before is not None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = nn.functional.pad(x, self._padded_before, mode=mode)
        x = _autocast(x) if torch.is_autocast_enabled("cpu") else x
        return conv2d(
            x, self.weight, self.bias, self.out_channels, self.kernel_size, self.stride, self._own_padding,
            self.dilation, self.groups,
        )  # fmt: skip


def _named(layer: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    """Attributes of a layer by name."""
    return {name: getattr(layer, name) for name in names}


def _autocast(x: torch.Tensor) -> torch.Tensor:
    """x in the dtype that torch.autocast has for products: all floats but float64 are cast, as for dense layers."""
    return x.to(torch.get_autocast_dtype("cpu")) if x.is_floating_point() and x.dtype != torch.float64 else x


def effective(layer: Any, name: str) -> nn.Parameter | None:
    """The weight or bias that a layer uses: what is pruned or parametrised is computed; None where it has none.

    ArgumentError for one that something else computes before each forward pass: what stands there now may be stale.
    """
    halves = layer._parameters.get(f"{name}_orig"), layer._buffers.get(f"{name}_mask")
    if halves[0] is not None and halves[1] is not None:
        pair = MaskedPair(name, f"{name}_orig", f"{name}_mask")
        return nn.Parameter(to_torch(folded(pair, *halves)), halves[0].requires_grad)
    with torch.no_grad():
        found = getattr(layer, name)
    if found is None or isinstance(found, nn.Parameter):
        return found
    if not parametrize.is_parametrized(layer, name):
        raise ArgumentError(
            f"the {name} of {type(layer).__name__} is no parameter: something computes it, such as a hook of "
            "torch.nn.utils.weight_norm; remove that first, so that the weight stands still (remove_weight_norm)"
        )
    return nn.Parameter(found.detach().clone())


LAYERS: tuple[type[SparseLayer], ...] = (SparseLinear, SparseConv1D, SparseConv2d)
