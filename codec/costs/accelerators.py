"""Times of published accelerators, from their own models: for comparison, not for this machine."""

from codec.costs.formulas.gaps import expected_fillers

# EIE as built in 45 nm (ISCA 2016, section 6).
_ELEMENTS, _HERTZ = 64, 800e6


def eie_seconds(
    rows: int, cols: int, *, density: float, activations: float = 1.0, elements: int = _ELEMENTS, bits: int = 4
) -> float:
    """Seconds of a product on EIE without load imbalance.

    Each processing element holds every ``elements``-th row, and works on one stored entry in a cycle, zero fillers
    included, in the columns whose activation is not zero (ISCA 2016, sections 3 and 4; fillers of independent zeros).

    Parameters
    ----------
    rows, cols : int
        Outputs and inputs.
    density, activations : float
        Shares of weights and activations that are not zero.
    elements, bits : int
        Processing elements, and bits of a zero count.

    Examples
    --------
    >>> round(1e6 * eie_seconds(4096, 9216, density=0.09, activations=0.351), 1)  # AlexNet fc6: 28.1 published
    27.8
    """
    stored = density + expected_fillers(1 - density, 1 << bits, rows / elements)
    return rows * cols * stored * activations / (elements * _HERTZ)
