"""coded: bytes that layout context comes to, segment by segment, by the models that it would choose."""

from codec.statistics.base import Plain


class Coded(Plain):
    """``coded``, uint64, within 1 %."""

    name = "coded"
    gives = ("coded",)
