"""Numbers with their units, as people read them."""


def size(nbytes: float) -> str:
    """Bytes in decimal units: 999 B, 1.00 KB, 43.5 MB, 1.20 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if nbytes < 999.5 or unit == "GB":
            break
        nbytes /= 1000
    return f"{nbytes:.0f} B" if unit == "B" else f"{_three(nbytes)} {unit}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits: 85.1 us, 1.20 ms, 3.00 s."""
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 999.5:
            return f"{_three(seconds * scale)} {unit}"
    return f"{_three(seconds)} s"


def ratio(whole: float, part: float) -> str:
    """How many times smaller or faster: 3.25x."""
    return f"{_three(whole / part)}x" if part else "-"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.2f} %"


def counted(n: int, noun: str) -> str:
    """1 tensor, 2 tensors, 10,616,832 weights."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _three(number: float) -> str:
    """Three significant digits below 1000, whole numbers above."""
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"
