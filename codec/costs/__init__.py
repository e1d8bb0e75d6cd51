"""What packed tensors cost, before one is made: in bytes, as a function of the share of zeros."""

from codec.costs.breakeven import BreakEven, break_even

__all__ = ["BreakEven", "break_even"]
