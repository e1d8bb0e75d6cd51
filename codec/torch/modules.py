"""SparseLinear and SparseConv2d: layers that hold one packed weight, and nothing dense.

The weight is a buffer of bytes, one frame, under the name that the dense layer gives its parameter: so a state_dict has
the same names, a model file holds the same bytes, and ties between layers stay ties between tensors.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

from codec.arraylike import to_torch
from codec.errors import ArgumentError, CodecError
from codec.interop.folding import MaskedPair, folded
from codec.packed import PackedTensor
from codec.tensor import encode
from codec.torch.frames import buffer_of, packed_of
from codec.torch.operators import conv2d, linear, linear_without_gradient


class SparseLayer(nn.Module):
    """What both layers share: the packed weight, how it is made and loaded, and how it is shown."""

    weight: torch.Tensor
    bias: nn.Parameter | None
    # The dense class that this one stands for.
    dense: ClassVar[type[nn.Module]]

    def _hold(self, outputs: int, bias: bool, nbytes: int, device: Any, dtype: Any) -> None:
        """Register the weight, of ``nbytes`` bytes without a content, and the bias."""
        self.register_buffer("weight", torch.zeros(nbytes, dtype=torch.uint8, device=device))
        own = nn.Parameter(torch.zeros(outputs, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", own)

    @classmethod
    def like(cls, layer: Any, *, bias: bool = True, nbytes: int = 0, device: Any = None) -> Self:
        """An empty layer of the geometry of a dense one; ``bias``: if that has one."""
        raise NotImplementedError

    @classmethod
    def from_dense(cls, layer: nn.Module, packed: PackedTensor | None = None, **options: Any) -> Self:
        """A layer with the weight of a dense one, packed as ``codec.encode(weight, **options)``.

        Parameters
        ----------
        layer : nn.Linear or nn.Conv2d
            Its bias is shared. Pruned and parametrised weights are taken as they are used.
        packed : PackedTensor, optional
            The weight, where it is packed already.
        **options
            As for `encode`; by default ``objective="speed"``.

        Raises
        ------
        ArgumentError
            As `encode`, and for a packed weight of another shape.

        Examples
        --------
        >>> SparseLinear.from_dense(nn.Linear(64, 128), layout="bitmap").packed.layout
        'bitmap'
        """
        new = cls.like(layer, bias=False)
        if packed is None:
            packed = encode(effective(layer, "weight"), **(options or {"objective": "speed"}))
        new.hold(buffer_of(packed))
        new.bias = effective(layer, "bias")
        new.train(layer.training)
        return new

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense weight."""
        raise NotImplementedError

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
            # Frames of one shape have different lengths: the buffer takes that of what is loaded.
            self.weight = torch.empty_like(found)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def extra_repr(self) -> str:
        """The dense layer's, and the weight's layout, dtype, stored entries and bytes."""
        own = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        own += f", bias={self.bias is not None}"
        if self.weight.device.type == "meta" or not self.weight.numel():
            return f"{own}, not loaded"
        w = self.packed
        return (
            f"{own}, layout={w.layout}, dtype={w.dtype}, nnz={w.nnz} ({w.sparsity:.1%} zeros), nbytes={w.nbytes} "
            f"({w.ratio:.2f} times smaller)"
        )

    # The attributes that extra_repr shows first.
    _shown: ClassVar[tuple[str, ...]]

    def to_dense(self, weight: nn.Parameter | None = None) -> Any:
        """The dense layer, with this layer's own bias.

        Its weight is unpacked, in the dtype that it was packed with, unless it is given. Errors as `packed`.
        """
        layer = self._empty()
        layer.weight = nn.Parameter(to_torch(self.packed.to_dense())) if weight is None else weight
        layer.bias = self.bias
        return layer.train(self.training)

    def _empty(self) -> nn.Module:
        """The dense layer on the meta device, without a bias."""
        raise NotImplementedError


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
    that. Input and bias have gradients, the weight has none. ``torch.set_num_threads`` bounds the threads.

    Examples
    --------
    >>> layer = SparseLinear.from_dense(nn.Linear(64, 128))
    >>> layer(torch.ones(3, 64)).shape
    torch.Size([3, 128])
    """

    dense = nn.Linear
    _shown = ("in_features", "out_features")

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, nbytes: int = 0, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._hold(out_features, bias, nbytes, device, dtype)

    @classmethod
    def like(cls, layer: Any, *, bias: bool = True, nbytes: int = 0, device: Any = None) -> Self:
        """See `SparseLayer.like`."""
        given = bias and layer.bias is not None
        dtype = layer.bias.dtype if given else None
        return cls(layer.in_features, layer.out_features, given, nbytes=nbytes, device=device, dtype=dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(out_features, in_features)."""
        return self.out_features, self.in_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x @ weight.T + bias``, for x (..., in_features) of floats."""
        product = linear if torch.is_grad_enabled() else linear_without_gradient
        return product(x, self.weight, self.bias, self.out_features)

    def _empty(self) -> nn.Module:
        return nn.Linear(self.in_features, self.out_features, bias=False, device="meta")


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

    dense = nn.Conv2d
    _shown = (
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
        for name in self._shown:
            setattr(self, name, getattr(layer, name))
        around = tuple(layer._reversed_padding_repeated_twice)
        # The operator pads with zeros, as many on both sides; what else there is goes around the input before it.
        self._own_padding = (0, 0)
        self._padded_before: tuple[int, ...] | None = around
        if padding_mode == "zeros" and around[0] == around[1] and around[2] == around[3]:
            self._own_padding, self._padded_before = (around[2], around[0]), None
        self._hold(out_channels, bias, nbytes, device, dtype)

    @classmethod
    def like(cls, layer: Any, *, bias: bool = True, nbytes: int = 0, device: Any = None) -> Self:
        """See `SparseLayer.like`."""
        given = bias and layer.bias is not None
        dtype = layer.bias.dtype if given else None
        return cls(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            layer.groups, given, layer.padding_mode, nbytes=nbytes, device=device, dtype=dtype,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, ...]:
        """(out_channels, in_channels / groups, kernel height, kernel width)."""
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution, for x (images, in_channels, height, width) of floats, or without images."""
        if self._padded_before is not None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = nn.functional.pad(x, self._padded_before, mode=mode)
        return conv2d(
            x, self.weight, self.bias, self.out_channels, self.kernel_size, self.stride, self._own_padding,
            self.dilation, self.groups,
        )  # fmt: skip

    def _empty(self) -> nn.Module:
        return nn.Conv2d(
            self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.dilation,
            self.groups, False, self.padding_mode, "meta",
        )  # fmt: skip


def effective(layer: Any, name: str) -> nn.Parameter | None:
    """The weight or bias that a layer uses: what is pruned or parametrised is computed; None where it has none."""
    halves = layer._parameters.get(f"{name}_orig"), layer._buffers.get(f"{name}_mask")
    if halves[0] is not None and halves[1] is not None:
        pair = MaskedPair(name, f"{name}_orig", f"{name}_mask")
        return nn.Parameter(to_torch(folded(pair, *halves)), halves[0].requires_grad)
    with torch.no_grad():
        found = getattr(layer, name)
    return found if found is None or isinstance(found, nn.Parameter) else nn.Parameter(found.detach().clone())


LAYERS: tuple[type[SparseLayer], ...] = (SparseLinear, SparseConv2d)
