"""Every format of other tools, by the registry: what it can express comes back, other dtypes are refused by name."""

import pytest
from networks import available, fitting, network
from strategies import ELEMENTS

import codec
from codec.errors import ArgumentError
from codec.formats import open_file, write_file
from codec.formats.base import array_of

NAME = "fc.weight"
AVAILABLE = available()


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)
@pytest.mark.parametrize("one", AVAILABLE, ids=lambda one: one.name)
def test_every_dtype_comes_back_or_is_refused_by_name(one, element, tmp_path):
    a = fitting(one, element)
    like = network(one, tmp_path, element)
    path = tmp_path / f"{NAME}{one.suffix}"
    if element.name not in one.writes:
        with pytest.raises(ArgumentError, match=rf"'fc\.weight'.* has no sparse {element.name}; it has .*sparse= may"):
            write_file({NAME: a}, path, one.name, like=like, sparse=lambda name: True)
        assert not path.exists()
        return
    for value in (a, codec.encode(a, layout="bitmap")):
        assert str(path) in write_file({NAME: value}, path, one.name, like=like)
        with open_file(path) as source:
            assert source.format == one.name
            found = source[NAME]
            assert isinstance(found, codec.PackedTensor) or one.name == "safetensors"
            back = array_of(found)
        assert (back.dtype, back.shape) == (a.dtype, a.shape)
        assert back.tobytes() == a.tobytes()
