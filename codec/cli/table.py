"""Plain text for people: tables, and text from files made safe to print."""

from collections.abc import Sequence

AS_ITSELF = "as itself"  # where the name of a layout would stand, for a tensor that is not packed
LONGEST = 60  # characters of a table's cell; a longer text is shortened in its middle
_GAP = "..."  # stands for what was left out


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
    header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, total: Sequence[str] | None = None
) -> str:
    """Columns two spaces apart: the first `left` of them flush left, the rest flush right; `total` below a rule.

    Each cell is made safe and takes at most ``LONGEST`` characters.
    """
    lines = [[safe(cell, LONGEST) for cell in line] for line in (header, *rows, *([total] if total else []))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    head, *body = map(line, lines)
    if total:
        body.insert(len(body) - 1, rule)
    return "\n".join([head, rule, *body])
