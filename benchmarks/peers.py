"""What a user could take instead to keep one pruned tensor without loss: a class for each, at its strongest settings.

Those of the extra `[bench]` are left out, with a note, where they are not installed. Every contender gets the tensor's
bits and gives them back; the benchmark compares them.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse
import zstandard
from measure import note

import codec
from codec.dtypes import element_type


class Contender(ABC):
    """One way to keep a tensor. ``pack`` and ``unpack`` use one thread."""

    name: str
    needs: tuple[str, ...] = ()  # packages of the extra [bench]

    @abstractmethod
    def pack(self, a: np.ndarray) -> Any:
        """The tensor in this way."""

    @abstractmethod
    def unpack(self, packed: Any, out: np.ndarray) -> np.ndarray:
        """The tensor again, into ``out`` where the library can do that."""

    def nbytes(self, packed: Any) -> int:
        """All bytes that have to be kept."""
        return len(packed)


def bits_of(a: np.ndarray) -> np.ndarray:
    """A tensor's elements as unsigned integers, flat."""
    return np.ascontiguousarray(a).reshape(-1).view(element_type(a.dtype).unsigned)


class Codec(Contender):
    """This library."""

    name = "codec"

    def pack(self, a: np.ndarray) -> codec.PackedTensor:
        return codec.encode(a, objective="disk", threads=1)

    def unpack(self, packed: codec.PackedTensor, out: np.ndarray) -> np.ndarray:
        return codec.decode(packed, out=out, threads=1)

    def nbytes(self, packed: codec.PackedTensor) -> int:
        return packed.nbytes


class Pcodec(Contender):
    """pcodec on the dense tensor: float32 as it is, narrower types by their bits."""

    name = "pcodec"
    needs = ("pcodec",)

    def numbers(self, bits: np.ndarray) -> np.ndarray:
        """What is handed to pcodec: it takes no types of 8 bits."""
        return bits.view(np.float32) if bits.itemsize == 4 else bits.astype(np.uint16) if bits.itemsize == 1 else bits

    def pack(self, a: np.ndarray) -> bytes:
        from pcodec import ChunkConfig, standalone

        return standalone.simple_compress(self.numbers(bits_of(a)), ChunkConfig(compression_level=8))

    def unpack(self, packed: bytes, out: np.ndarray) -> np.ndarray:
        from pcodec import standalone

        numbers = (
            self.numbers(bits_of(out)) if out.itemsize == 1 else bits_of(out).view(self.numbers(bits_of(out)).dtype)
        )
        standalone.simple_decompress_into(packed, numbers)
        if out.itemsize == 1:
            bits_of(out)[:] = numbers
        return out


class PcodecOfNonzeros(Pcodec):
    """pcodec on the values that are not zero, zstd -19 on a bit for each element."""

    name = "pcodec + bits"

    def pack(self, a: np.ndarray) -> tuple[bytes, bytes]:
        from pcodec import ChunkConfig, standalone

        bits = bits_of(a)
        mask = zstandard.ZstdCompressor(level=19).compress(np.packbits(bits != 0, bitorder="little").tobytes())
        return mask, standalone.simple_compress(self.numbers(bits[bits != 0]), ChunkConfig(compression_level=8))

    def unpack(self, packed: tuple[bytes, bytes], out: np.ndarray) -> np.ndarray:
        from pcodec import standalone

        mask = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed[0]), np.uint8)
        bits = bits_of(out)
        stored = np.unpackbits(mask, count=bits.size, bitorder="little").astype(bool)
        bits[:] = 0
        bits[stored] = standalone.simple_decompress(packed[1]).view(bits.dtype if bits.itemsize > 1 else np.uint16)
        return out

    def nbytes(self, packed: tuple[bytes, bytes]) -> int:
        return sum(map(len, packed))


class OpenZL(Contender):
    """OpenZL: the smallest of its graphs for numbers. The time is that of the graph that is taken."""

    name = "OpenZL"
    needs = ("openzl",)
    _splits = ("zl.bitsplit_bf16", "zl.bitsplit_fp", "zl.bitsplit_top8")

    def __init__(self) -> None:
        self._graph: str | None = None

    def graphs(self) -> Iterator[str]:
        """Names of the graphs: a split, and whether zeros are taken out before."""
        for split in ("zl.transformer_numeric", "zl.compress_generic", *self._splits):
            yield split
            if split != "zl.compress_generic":
                yield f"sparse {split}"

    def begin(self, a: np.ndarray) -> None:
        """Find the graph for a tensor."""
        sizes: dict[str, int] = {}
        for name in self.graphs():
            try:
                sizes[name] = len(self._compress(a, name))
            except (RuntimeError, ValueError):  # a graph that does not take this width
                continue
        self._graph = min(sizes, key=sizes.__getitem__)

    def _compress(self, a: np.ndarray, name: str) -> bytes:
        from openzl import ext

        compressor = ext.Compressor()
        compressor.set_parameter(ext.CParam.FormatVersion, ext.MAX_FORMAT_VERSION)
        split = name.removeprefix("sparse ")
        own = compressor.get_graph("zl.transformer_numeric")
        graph = own
        if split in self._splits:
            graph = compressor.build_static_graph(compressor.get_node(split), [own])
        elif split != "zl.transformer_numeric":
            graph = compressor.get_graph(split)
        if name != split:
            graph = compressor.build_static_graph(compressor.get_node("zl.sparse_num"), [own, graph])
        compressor.select_starting_graph(graph)
        context = ext.CCtx()
        context.ref_compressor(compressor)
        context.set_parameter(ext.CParam.FormatVersion, ext.MAX_FORMAT_VERSION)
        return bytes(context.compress([ext.Input(ext.Type.Numeric, bits_of(a))]))

    def pack(self, a: np.ndarray) -> bytes:
        if self._graph is None:
            self.begin(a)
        return self._compress(a, self._graph or "")

    def unpack(self, packed: bytes, out: np.ndarray) -> np.ndarray:
        from openzl import ext

        found = ext.DCtx().decompress(packed)[0].content.as_nparray()
        bits_of(out)[:] = np.asarray(found).reshape(-1).view(bits_of(out).dtype)
        return out


class Z4ai(Contender):
    """z4ai, told the type."""

    name = "z4ai"
    needs = ("z4ai",)

    def pack(self, a: np.ndarray) -> bytes:
        import z4ai

        return z4ai.compress_ndarray(a if a.dtype.isbuiltin == 1 else bits_of(a), effort="max", threads=1)

    def unpack(self, packed: bytes, out: np.ndarray) -> np.ndarray:
        import z4ai

        bits_of(out)[:] = bits_of(z4ai.decompress_ndarray(packed))
        return out


class Zstd(Contender):
    """zstd on the dense bytes."""

    def __init__(self, level: int) -> None:
        self.name, self._level = f"zstd -{level}", level

    def pack(self, a: np.ndarray) -> bytes:
        return zstandard.ZstdCompressor(level=self._level).compress(bits_of(a))

    def unpack(self, packed: bytes, out: np.ndarray) -> np.ndarray:
        bits_of(out).view(np.uint8)[:] = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8)
        return out


class Blosc2(Contender):
    """blosc2: bitshuffle, then zstd at its highest level."""

    name = "blosc2"
    needs = ("blosc2",)

    def pack(self, a: np.ndarray) -> bytes:
        import blosc2

        how = {"codec": blosc2.Codec.ZSTD, "clevel": 9, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1}
        return bytes(blosc2.compress2(bits_of(a).tobytes(), typesize=a.itemsize, **how))

    def unpack(self, packed: bytes, out: np.ndarray) -> np.ndarray:
        import blosc2

        bits_of(out).view(np.uint8)[:] = np.frombuffer(blosc2.decompress2(packed, nthreads=1), np.uint8)
        return out


class ZipNN(Contender):
    """ZipNN, which splits floats into bytes, told the type; it changes what it compresses, so it gets a copy."""

    name = "ZipNN"
    needs = ("zipnn",)

    def _coder(self, a: np.ndarray) -> Any:
        import zipnn

        kind = {4: "float32", 2: "bfloat16", 1: "float8_e4m3fn"}[a.itemsize]
        return zipnn.ZipNN(input_format="byte", bytearray_dtype=kind, threads=1)

    def pack(self, a: np.ndarray) -> bytes:
        return bytes(self._coder(a).compress(bytearray(bits_of(a).tobytes())))

    def unpack(self, packed: bytes, out: np.ndarray) -> np.ndarray:
        bits_of(out).view(np.uint8)[:] = np.frombuffer(self._coder(out).decompress(bytearray(packed)), np.uint8)
        return out


class CompressedTensors(Contender):
    """The bitmask of compressed-tensors 0.14: a bit for each element, the non-zeros, and where each row begins."""

    name = "bitmask"
    needs = ("compressed_tensors", "torch")

    def pack(self, a: np.ndarray) -> Any:
        import torch
        from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor

        signed = {1: np.int8, 2: np.int16, 4: np.int32}[a.itemsize]
        return BitmaskTensor.from_dense(torch.from_numpy(bits_of(a).view(signed).reshape(a.shape)))

    def unpack(self, packed: Any, out: np.ndarray) -> np.ndarray:
        bits_of(out)[:] = bits_of(packed.decompress().numpy())
        return out

    def nbytes(self, packed: Any) -> int:
        return sum(one.numel() * one.element_size() for one in packed.dict("").values() if hasattr(one, "numel"))


class Npz(Contender):
    """scipy.sparse.save_npz, compressed."""

    name = "npz"

    def pack(self, a: np.ndarray) -> bytes:
        file = io.BytesIO()
        scipy.sparse.save_npz(file, scipy.sparse.csr_array(bits_of(a).reshape(a.shape)), compressed=True)
        return file.getvalue()

    def unpack(self, packed: bytes, out: np.ndarray) -> np.ndarray:
        bits_of(out)[:] = bits_of(scipy.sparse.load_npz(io.BytesIO(packed)).toarray())
        return out


_MAKERS: tuple[Callable[[], Contender], ...] = (
    Codec, Pcodec, PcodecOfNonzeros, OpenZL, Z4ai, lambda: Zstd(3), lambda: Zstd(19), Blosc2, ZipNN,
    CompressedTensors, Npz,
)  # fmt: skip


def contenders() -> list[Contender]:
    """A new one of each that is installed, this library first."""
    found = [make() for make in _MAKERS]
    for one in found:
        missing = [name for name in one.needs if find_spec(name) is None]
        if missing:
            note(f"{one.name} is left out: pip install {' '.join(missing)}")
    return [one for one in found if all(find_spec(name) for name in one.needs)]
