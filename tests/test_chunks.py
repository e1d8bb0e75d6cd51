"""Chunks of arrays as packed tensors: the codecs for zarr 3 and numcodecs."""

import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from strategies import ELEMENTS, seeded

import codec
from codec.errors import ArgumentError, CodecError
from codec.formats.chunks import Packing


@pytest.fixture
def zarr():
    found = pytest.importorskip("zarr")
    from codec.formats.zarr import ZarrCodec

    found.registry.register_codec("codec", ZarrCodec)
    return found


@pytest.fixture
def numcodecs():
    found = pytest.importorskip("numcodecs")
    from codec.formats.numcodecs import NumcodecsCodec

    found.register_codec(NumcodecsCodec)
    return found


def test_entry_points_name_what_is_there():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for group, package in (("numcodecs.codecs", "numcodecs"), ("zarr.codecs", "zarr")):
        pytest.importorskip(package)
        ((name, place),) = project["entry-points"][group].items()
        module, _, attribute = place.partition(":")
        assert name == "codec"
        assert hasattr(import_module(module), attribute)


@pytest.mark.parametrize("element", [e for e in ELEMENTS if e.dtype.isbuiltin == 1], ids=lambda e: e.name)
def test_numcodecs_gives_every_bit_back(numcodecs, element):
    a = seeded((30, 40), element, 0.8)
    for options in ({}, {"objective": "memory", "layout": "bitmap"}):
        one = numcodecs.get_codec({"id": "codec", **options})
        assert numcodecs.get_codec(one.get_config()).get_config() == one.get_config()
        data = one.encode(a)
        assert one.decode(data).tobytes() == a.tobytes()
        out = np.empty_like(a)
        one.decode(data, out)
        assert out.tobytes() == a.tobytes()


def test_numcodecs_refuses(numcodecs):
    one = numcodecs.get_codec({"id": "codec"})
    with pytest.raises(ArgumentError, match="cannot code dtype complex128"):
        one.encode(np.ones(3, complex))
    with pytest.raises(CodecError):
        one.decode(b"no frame")
    with pytest.raises(CodecError, match="a chunk of 72 bytes; the array has 32 for it"):
        one.decode(one.encode(np.eye(3)), np.empty(4))
    with pytest.raises(ArgumentError, match="has speed, which is not known"):
        numcodecs.get_codec({"id": "codec", "speed": 3})


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint64", "bool"])
def test_zarr_arrays(zarr, tmp_path, dtype):
    rng = np.random.default_rng(0)
    a = (rng.integers(0, 100, (100, 70)) * (rng.random((100, 70)) < 0.1)).astype(dtype)
    from codec.formats.zarr import ZarrCodec

    how = {"shape": a.shape, "chunks": (32, 64), "dtype": dtype, "compressors": None}
    array = zarr.create_array(tmp_path / "a.zarr", serializer=ZarrCodec(Packing(layout="bitmap")), **how)
    array[:] = a
    again = zarr.open_array(tmp_path / "a.zarr", mode="r")
    assert again.metadata.codecs[0].packing == Packing(layout="bitmap")
    assert np.array_equal(again[:], a)
    for key in (
        (slice(3, 40), slice(60, 66)),
        (5, slice(None)),
        (slice(None, None, 7), 3),
        (slice(0, 32), slice(0, 64)),
    ):
        assert np.array_equal(again[key], a[key])
    size = sum(path.stat().st_size for path in (tmp_path / "a.zarr").rglob("c/*/*"))
    assert size < a.nbytes or a.itemsize == 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_zarr_2(zarr, numcodecs, tmp_path, order):
    a = np.arange(60, dtype="f4").reshape(6, 10)
    how = {"shape": a.shape, "chunks": (4, 5), "dtype": "f4", "zarr_format": 2, "order": order}
    compressor = numcodecs.get_codec({"id": "codec"})
    zarr.create_array(tmp_path / "a.zarr", compressors=compressor, **how)[:] = a
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr", mode="r")[:], a)


def test_zarr_arrays_of_no_dimension(zarr):
    from codec.formats.zarr import ZarrCodec

    array = zarr.create_array({}, serializer=ZarrCodec(), shape=(), chunks=(), dtype="f4", compressors=None)
    array[...] = 3
    assert array[...] == 3


def test_zarr_refuses(zarr, tmp_path):
    from codec.formats.zarr import ZarrCodec

    how = {"shape": (64, 64), "chunks": (64, 64), "dtype": "f4", "compressors": None}
    array = zarr.create_array(tmp_path / "a.zarr", serializer=ZarrCodec(), **how)
    array[:] = np.eye(64)
    (chunk,) = (tmp_path / "a.zarr").rglob("c/*/*")
    chunk.write_bytes(codec.dumps(codec.encode(np.eye(32))))
    with pytest.raises(CodecError, match=r"a chunk of float64 and shape \(32, 32\)"):
        array[:]
    chunk.write_bytes(b"no frame")
    with pytest.raises(CodecError):
        array[:5]
    with pytest.raises(ArgumentError, match="not the metadata"):
        ZarrCodec.from_dict({"name": "other"})


def test_how_chunks_are_packed_is_checked():
    for wrong in ({"objective": "small"}, {"layout": "none"}, {"layout": ["csr"]}, {"zero": "maybe"}):
        with pytest.raises(ArgumentError):
            Packing.of(wrong)
