"""What packed tensors cost before one is made, as functions of the share of zeros.

formulas/   closed forms of formats that codec does not write, in bits per element
crossings   where two costs cross, and the lower envelope of many
frames      expected bytes of whole frames, for independent and structured zeros
breakeven   from which sparsity on a layout costs less than another
"""

from codec.costs.breakeven import BreakEven, break_even
from codec.costs.machine import MachineProfile, profile_machine
from codec.costs.plan import Plan
from codec.costs.planner import plan

__all__ = ["BreakEven", "MachineProfile", "Plan", "break_even", "plan", "profile_machine"]
