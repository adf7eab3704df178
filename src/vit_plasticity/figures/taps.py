"""The figure of the probes by block: how much a linear probe reads out of the residual stream, depth by depth."""

from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from vit_plasticity.figures import theme
from vit_plasticity.figures.data import panels_of

TAPS = {"mha": "after attention", "ffn": "after feed-forward"}
TICKS = [1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9]
_PRETRAINED = {"color": "#222222", "linestyle": (0, (3.5, 1.6)), "linewidth": 1.5}


def by_block(rows, styles):
    """Per model and dataset two panels, one per tap: test accuracy of the probe by depth, the embedding at 0.

    The pretrained model is dashed; a solid line is the model of which that component was fine-tuned. The scale is that
    of log odds, so that 98 and 99 % lie as far apart as they matter.
    """
    groups = panels_of(rows)
    figure, axes = theme.panels(2 * len(groups), height=2.2 if len(groups) < 3 else 1.6, columns=4)
    for position, (_, _, title, group) in enumerate(groups):
        pair = axes[2 * position : 2 * position + 2]
        half = 0.5 / group["n_test"].max()  # an image: where accuracies of 0 and 1 are drawn
        for axis, (tap, where) in zip(pair, TAPS.items(), strict=True):
            seen = group[group["tap"].isin(["embed", tap])]
            seen = seen.assign(depth=seen["block"].add(1).fillna(0), accuracy=seen["accuracy"].clip(half, 1 - half))
            for component, one in seen[seen["component"].notna()].groupby("component"):
                axis.plot(one["depth"], one["accuracy"], color=styles[component]["color"])
                theme.points(axis, one["depth"], one["accuracy"], styles[component], size=3)
            before = seen[seen["component"].isna()]
            axis.plot(before["depth"], before["accuracy"], **_PRETRAINED)
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            theme.title(axis, f"{title}\n{where}")
        pair[1].sharey(pair[0])
        _accuracies(pair[0])
    figure.supxlabel("Blocks passed (0: embedding)")
    figure.supylabel("Test accuracy of a linear probe (%)")
    pretrained = Line2D([], [], label="Pretrained", **_PRETRAINED)
    theme.legend(figure, rows["component"].dropna().unique(), styles, linestyle="-", further=[pretrained])
    return figure


def _accuracies(axis):
    """Make y, shares, a scale of log odds with ticks in percent."""
    axis.set_yscale("logit")
    axis.yaxis.set_major_locator(FixedLocator([tick / 100 for tick in TICKS]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())
