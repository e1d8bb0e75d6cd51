"""Operations as papers count them: parameters, multiply-adds and memory accesses, of layers and of networks.

Removing m filters of a layer removes m / n of its own operations, and of the layers behind it what reads their outputs
(Li 2017, section 3.1). Biases and batch norm count where they are asked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Self

from codec.errors import ArgumentError
from codec.matrix import is_int


@dataclass(frozen=True)
class Operations:
    """What a layer or network takes for one input.

    Attributes
    ----------
    parameters : float
        Weights that are not zero, biases, and parameters of batch norm.
    macs : float
        Multiply-adds with a weight and an activation that are not zero.
    accesses : float
        Weights read, activations read, and outputs written, each once: numbers, not bytes.
    """

    parameters: float
    macs: float
    accesses: float

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.parameters + other.parameters, self.macs + other.macs, self.accesses + other.accesses)

    def compression_ratio(self, pruned: "Operations") -> float:
        """Parameters of the original by those of the pruned network (Blalock 2020, section 4); inf without any."""
        return self.parameters / pruned.parameters if pruned.parameters else inf

    def theoretical_speedup(self, pruned: "Operations") -> float:
        """Multiply-adds of the original by those of the pruned network (Blalock 2020, section 4); inf without any."""
        return self.macs / pruned.macs if pruned.macs else inf


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution, as far as its operations go.

    Parameters
    ----------
    name : str
    filters, channels : int
        Outputs and inputs; of a convolution its filters, and the channels that they read.
    kernel : tuple of int
        Of a convolution, (kh, kw).
    positions : int
        Outputs of one filter: height times width of the output; 1 for a linear layer.
    stride : int
        Of a convolution along each axis: it reads stride^2 input positions for each output.
    reads : str or None
        The layer whose outputs are its inputs; None for the network's input, or one that no removal reaches.
    per_channel : int
        Inputs for each filter of the layer that it reads: height times width where a linear layer stands behind a
        convolution.
    bias, batch_norm : bool
        Whether one and two more parameters for each filter count.
    """

    name: str
    filters: int
    channels: int
    kernel: tuple[int, ...] = ()
    positions: int = 1
    stride: int = 1
    reads: str | None = None
    per_channel: int = 1
    bias: bool = False
    batch_norm: bool = False

    def __post_init__(self) -> None:
        counts = (self.filters, self.channels, *self.kernel, self.positions, self.stride, self.per_channel)
        if not all(is_int(n) and n >= 0 for n in counts):
            raise ArgumentError(f"layer {self.name!r} has sizes {counts}; expected ints from 0 on")

    @property
    def weights(self) -> int:
        """Weights, zeros included."""
        return self.filters * self.channels * prod(self.kernel)

    def operations(self, *, sparsity: float = 0.0, activations: float = 0.0) -> Operations:
        """What it takes with these shares of zeros among weights and activations; ArgumentError beyond 0 to 1.

        >>> round(Layer("fc7", 4096, 4096).operations(sparsity=0.91, activations=0.647).macs / 4096**2, 3)
        0.032
        """
        for name, share in (("sparsity", sparsity), ("activations", activations)):
            if not 0 <= share <= 1:
                raise ArgumentError(f"{name}={share!r} of layer {self.name!r}; expected a share of zeros from 0 to 1")
        kept, read = 1 - sparsity, 1 - activations
        parameters = self.weights * kept + self.filters * (self.bias + 2 * self.batch_norm)
        inputs = self.channels * self.positions * self.stride**2
        outputs = self.filters * self.positions
        return Operations(parameters, self.weights * kept * self.positions * read, parameters + inputs * read + outputs)


@dataclass(frozen=True)
class Network:
    """Layers by name, each reading the outputs of another."""

    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, layers: Iterable[Layer]) -> Self:
        """Checked: names are unique, and the layers that are read exist, with as many filters as are read."""
        found = cls(tuple(layers))
        by_name = {layer.name: layer for layer in found.layers}
        if len(by_name) != len(found.layers):
            raise ArgumentError("two layers have the same name; expected names that tell them apart")
        for layer in found.layers:
            if layer.reads is None:
                continue
            source = by_name.get(layer.reads)
            if source is None or source.filters * layer.per_channel != layer.channels:
                there = "which does not exist" if source is None else f"which has {source.filters} filters"
                raise ArgumentError(
                    f"layer {layer.name!r} reads {layer.channels} channels of {layer.reads!r}, {there}; expected "
                    f"channels = filters * per_channel"
                )
        return found

    def operations(self, sparsities: Mapping[str, float] | None = None) -> Operations:
        """The sum over all layers; ``sparsities`` are shares of zero weights by layer."""
        zeros = dict(sparsities or {})
        if unknown := sorted(set(zeros) - {layer.name for layer in self.layers}):
            raise ArgumentError(f"no layer {unknown[0]!r} in this network")
        total = Operations(0, 0, 0)
        for layer in self.layers:
            total += layer.operations(sparsity=zeros.get(layer.name, 0.0))
        return total

    def without_filters(self, removed: Mapping[str, int]) -> "Network":
        """The network without so many filters of each layer, and without what the layers behind did with them.

        Raises ArgumentError for a layer that does not exist, or has not so many filters.

        >>> net = Network.of([Layer("a", 8, 3, (3, 3), 64), Layer("b", 4, 8, (3, 3), 64, reads="a")])
        >>> net.operations().macs, net.without_filters({"a": 2}).operations().macs
        (32256.0, 24192.0)
        """
        by_name = {layer.name: layer for layer in self.layers}
        for name, count in removed.items():
            if name not in by_name or not is_int(count) or not 0 <= count <= by_name[name].filters:
                has = f"it has {by_name[name].filters}" if name in by_name else "there is no such layer"
                raise ArgumentError(f"{count!r} filters of layer {name!r} cannot go: {has}")

        def smaller(layer: Layer) -> Layer:
            behind = removed.get(layer.reads or "", 0) * layer.per_channel
            return replace(layer, filters=layer.filters - removed.get(layer.name, 0), channels=layer.channels - behind)

        return Network(tuple(map(smaller, self.layers)))


def sharing_ratio(weights: int, value_bits: int, shared: int) -> float:
    """How many times smaller weights are as codes for ``shared`` values, the values themselves included.

    r = n b / (n log2(k) + k b), with whole bits for a code (Deep Compression, section 3).

    >>> sharing_ratio(16, 32, 4)
    3.2
    """
    bits = max(1, (shared - 1).bit_length())
    return weights * value_bits / (weights * bits + shared * value_bits)
