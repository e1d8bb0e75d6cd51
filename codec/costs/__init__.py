"""What packed tensors cost before one is made, as functions of the share of zeros.

formulas/     closed forms of formats that codec does not write, in bits per element
crossings     where two costs cross, and the lower envelope of many
frames        expected bytes of whole frames, for independent and structured zeros
operations    multiply-adds, parameters and memory accesses, as papers count them
energy        joules of a product by the table of a 45 nm process
accelerators  times of published accelerators, from their own models
machine/      times of this machine, measured once, and predicted from that
metrics       what is compared beside bytes: seconds and joules over the sparsity
breakeven     from which sparsity on a layout costs less than another
inverse       which sparsity is needed for a size, a speed, another granularity
tensors       the tensors of a file or a mapping, as a plan asks for them
ties          which of them are stored once
options       the ways in which one tensor can be stored, with their costs
plan          how each tensor of a model is stored, as a file that people can edit
planner       the choice: from tensors to a plan
"""

from codec.costs.breakeven import BreakEven, break_even
from codec.costs.machine import MachineProfile, profile_machine
from codec.costs.plan import Plan
from codec.costs.planner import plan

__all__ = ["BreakEven", "MachineProfile", "Plan", "break_even", "plan", "profile_machine"]
