"""The table of formats and dtypes in codec/formats/README.md is what the registry says.

`python tests/test_formats_table.py` writes it anew.
"""

from pathlib import Path

import numpy as np

import codec
from codec.errors import ArgumentError
from codec.formats import FORMATS, Format, support

PAGE = Path(__file__).parents[1] / "codec" / "formats" / "README.md"
BEGIN, END = "<!-- table: written by tests/test_formats_table.py -->\n", "<!-- end of the table -->\n"
WORDS = {"in, out": "both", "in": "in", "out": "out", "": ""}
SHAPES = ((), (64,), (64, 64), (64, 4, 4, 4))


def shapes(one: Format) -> str:
    """The numbers of dimensions of sparse tensors that a format writes."""
    found = []
    for shape in SHAPES:
        a = np.zeros(shape, next(e.dtype for n, e in codec.dtypes.BY_NAME.items() if n in one.writes))
        a.reshape(-1)[0] = 1
        try:
            one.check("l.weight", codec.encode(a, layout="csr"))
        except ArgumentError:
            continue
        found.append(str(len(shape)))
    return "-" if one.name == "safetensors" else " ".join(found)


def keeps(one: Format) -> str:
    """What a file of a format holds beside its tensors."""
    return ", ".join(word for word, has in (("metadata", one.keeps_metadata), ("network", one.networks)) if has)


def table() -> str:
    """The table in Markdown."""
    rows = support()
    dtypes = list(rows[0]["dtypes"])
    lines = [["format", "extra", "shapes", "keeps", *dtypes], ["---"] * (4 + len(dtypes))]
    for row in rows:
        one = FORMATS[row["format"]]
        lines.append(
            [one.name, one.extra or "", shapes(one), keeps(one), *(WORDS[row["dtypes"][name]] for name in dtypes)]
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def test_the_table_is_that_of_the_registry() -> None:
    found = PAGE.read_text().split(BEGIN)[1].split(END)[0]
    assert found == table(), "python tests/test_formats_table.py writes it anew"


def test_every_format_is_described() -> None:
    text = PAGE.read_text().split(END)[1]
    for name in FORMATS:
        assert name in text


if __name__ == "__main__":
    page = PAGE.read_text()
    PAGE.write_text(page.split(BEGIN)[0] + BEGIN + table() + END + page.split(END)[1])
