"""When to stop measuring: looks at growing numbers of pairs, and intervals that hold at all looks together.

Group-sequential sampling: the numbers of pairs at which one looks are fixed beforehand and double each time, and the
error of 5 % is spent in equal parts over the looks (Bonferroni). So with 95 % probability a block's mean lies in its
intervals at every look, whichever is the last; as for any Student interval, the mean of that many pairs counts as
normal.
"""

import numpy as np

CONFIDENCE = 0.95
FIRST_LOOK = 64


def looks(most):
    """Numbers of pairs after which to look: 64, 128, 256, …, and `most`, the last."""
    doubled = [FIRST_LOOK << i for i in range(most.bit_length()) if FIRST_LOOK << i < most]
    return [*doubled, most]


def half_widths(rates, n_looks):
    """Half the width of the interval of each block's mean, at one of `n_looks` looks: rates (n_blocks, n) →
    (n_blocks,)."""
    from scipy.special import stdtrit  # where nothing stops early, nothing waits for this import

    n = rates.shape[1]
    quantile = stdtrit(n - 1, 1 - (1 - CONFIDENCE) / n_looks / 2)
    return quantile * rates.std(axis=1, ddof=1) / np.sqrt(n)


def narrow_enough(rates, relative_width, n_looks):
    """Whether the interval of every block's mean is at most `relative_width` times that mean wide."""
    return bool((2 * half_widths(rates, n_looks) <= relative_width * rates.mean(axis=1)).all())
