"""When to stop measuring: looks at growing numbers of pairs, and intervals that hold at all looks together.

Group-sequential sampling: the numbers of pairs at which one looks are fixed beforehand and double each time, and the
error of 5 % is spent in equal parts over the looks (Bonferroni). So with 95 % probability a block's mean lies in its
intervals at every look, whichever is the last. Intervals are those of `runtime.intervals`: once every image is in use,
more pairs of the same images hardly narrow them.
"""

from vit_plasticity.runtime.intervals import image_interval

CONFIDENCE = 0.95
FIRST_LOOK = 64


def looks(most):
    """Numbers of pairs after which to look: 64, 128, 256, …, and `most`, the last."""
    doubled = [FIRST_LOOK << i for i in range(most.bit_length()) if FIRST_LOOK << i < most]
    return [*doubled, most]


def interval(rates, source_image, target_image, n_looks, *, same_images=False):
    """Mean of each block and its interval at one of `n_looks` looks: rates (n_blocks, n) → three arrays (n_blocks,)."""
    confidence = 1 - (1 - CONFIDENCE) / n_looks
    return image_interval(rates, source_image, target_image, confidence, same_images=same_images)


def narrow_enough(mean, low, high, relative_width):
    """Whether the interval of every block's mean is at most `relative_width` times that mean wide."""
    return bool((high - low <= relative_width * mean).all())
