"""codec reads the golden vectors of the format and refuses the others, for the reason that the specification names."""

import head
import numpy as np
import pytest
from vectors import DECODE, MANIFEST, REJECT, VECTORS, check, is_model

import codec


@pytest.mark.parametrize("name", DECODE)
def test_codec_reads(name: str) -> None:
    path, expect = VECTORS / MANIFEST[name]["file"], MANIFEST[name]["expect"]
    if not is_model(name):
        check(codec.decode(path.read_bytes()), expect)
        return
    with codec.safe_open(path, framework="np") as file:
        file.verify()
        assert set(file.keys()) == expect["tensors"].keys()
        assert (file.metadata() or {}) == expect["metadata"]
        for tensor, row in expect["tensors"].items():
            if row["dtype"] in head.DTYPES:
                check(np.asarray(file.get_tensor(tensor)), row)


@pytest.mark.parametrize("name", REJECT)
def test_codec_refuses(name: str) -> None:
    path = VECTORS / MANIFEST[name]["file"]
    errors = {"format": codec.FormatError, "checksum": codec.ChecksumError, "version": codec.VersionError}

    def read() -> None:
        if not is_model(name):
            codec.decode(path.read_bytes())
            return
        with codec.safe_open(path, framework="np") as file:
            file.verify()

    with pytest.raises(codec.FormatError) as caught:  # the base of the other two
        read()
    assert type(caught.value) is errors[MANIFEST[name]["expect"]["error"]]
