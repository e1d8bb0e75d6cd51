"""Times: what a machine takes for products, decoding and encoding, measured once.

model      what one kernel row costs, by batch, density and size
profile    all that was measured, as a file; the times that follow
timing     how times are taken
libraries  the dense libraries, in a process of their own
measure    profile_machine
"""

from codec.costs.machine.measure import profile_machine
from codec.costs.machine.profile import MachineProfile, Prediction, cached

__all__ = ["MachineProfile", "Prediction", "cached", "profile_machine"]
