"""Plain text for people: tables, and text from files made safe to print."""

import shutil
import sys
from collections.abc import Sequence
from io import StringIO

AS_ITSELF = "as itself"  # where the name of a layout would stand, for a tensor that is not packed
LONGEST = 60  # characters of a table's cell; a longer text is shortened in its middle
_GAP = "..."  # stands for what was left out
_SHORTEST, _READABLE = 16, 28  # characters that are left of a name, at least, and where columns can be left out
# A box of rich's: nothing but rules of dashes below the header and above the sums.
_RULES = "    \n    \n----\n    \n----\n----\n    \n    \n"


def safe(text: str, most: int | None = None) -> str:
    """Text that may come from a file, made safe for a terminal: what is not printable becomes an escape.

    Control characters, line ends, and marks that change the direction of writing cannot act on the terminal any more.
    With ``most``, a longer text loses its middle, so that it takes at most so many characters.

    >>> safe("a\\nb\\x1b[2J"), safe("model.layers.0.weight", 11)
    ('a\\\\nb\\\\x1b[2J', 'mode...ight')
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if most is None or len(text) <= most:
        return text
    end = (most - len(_GAP)) // 2
    return text[: most - len(_GAP) - end] + _GAP + text[len(text) - end :]


def shape_text(shape: Sequence[int]) -> str:
    """A shape as 4096x4096, or "scalar"."""
    return "x".join(map(str, shape)) or "scalar"


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    total: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> str:
    """Columns two spaces apart: the first `left` of them flush left, the rest flush right; `total` below a rule.

    Each cell is made safe and takes at most ``LONGEST`` characters. On a terminal the table fits: columns that are
    ``optional`` are left out, the first one first, as far as names need their room; names in the first column lose
    their middle, and what is still too wide is folded. In a pipe it is as wide as it is, and whole.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[safe(cell, LONGEST) for cell in line] for line in (header, *rows, *([total] if total else []))]
    for name in optional:
        if _width(cells) - max(0, _widths(cells)[0] - _READABLE) <= (terminal_width() or sys.maxsize):
            break
        at = cells[0].index(name)
        cells, left = [[*line[:at], *line[at + 1 :]] for line in cells], left - (at < left)
    widths, whole = _widths(cells), _width(cells)
    width = terminal_width() or whole
    first = max(_SHORTEST, widths[0] - max(0, whole - width))
    drawn = Table(
        box=Box(_RULES, ascii=True),
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_header=True,
        header_style="",
    )
    for number, name in enumerate(cells[0]):
        drawn.add_column(Text(name), justify="left" if number < left else "right", overflow="fold")
    for number, line in enumerate(cells[1:], 1):
        last = total is not None and number == len(cells) - 2
        drawn.add_row(Text(safe(line[0], first)), *map(Text, line[1:]), end_section=last)
    text = StringIO()
    Console(width=max(width, _SHORTEST), file=text, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _width(cells: Sequence[Sequence[str]]) -> int:
    widths = _widths(cells)
    return sum(widths) + 2 * (len(widths) - 1)


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
