"""The figure of the loss landscape: the loss around the path along which each component was trained."""

import numpy as np
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from vit_plasticity.figures import theme
from vit_plasticity.vit.components import parse

LEVELS = 16
_DARK = "#1a1a1a"
_PATH = {"color": "white", "linewidth": 0.9, "marker": "o", "markersize": 1.8, "markeredgewidth": 0}
_START = {"color": "white", "marker": "s", "markersize": 4, "markeredgecolor": _DARK, "markeredgewidth": 0.7}
_END = {"color": "#ffd23f", "marker": "*", "markersize": 8, "markeredgecolor": _DARK, "markeredgewidth": 0.7}


def draw(rows, styles):
    """Per cell: contours of the loss on the plane closest to the path, all panels on one logarithmic scale."""
    keys = ["model", "dataset", "seed"]
    varying = [key for key in keys if rows[key].nunique() > 1]
    cells = list(rows.groupby([*keys, "component"], sort=False))
    grid = rows.loc[rows["part"] == "grid", "loss"]
    shown = grid[np.isfinite(grid) & (grid > 0)]
    if shown.empty:
        return theme.note("Every run of these cells diverged: there is no path to a trained model.")
    levels = np.geomspace(shown.min(), shown.max() * (1 + 1e-9), LEVELS)
    look = {"levels": levels, "norm": LogNorm(levels[0], levels[-1])}
    figure, axes = theme.panels(len(cells), height=1.8)
    for axis, (_, one) in zip(axes, cells, strict=True):
        first = one.iloc[0]
        of = ", ".join(f"seed {first[key]}" if key == "seed" else first[key] for key in varying)
        theme.title(axis, "\n".join(filter(None, [parse(first["component"]).label, of])))
        axis.grid(False)
        if one["part"].isna().all():
            axis.set_axis_off()
            axis.text(0.5, 0.5, "every run\ndiverged", ha="center", va="center", color=theme.GREY)
            continue
        loss = one[one["part"] == "grid"].pivot(index="y", columns="x", values="loss")
        filled = axis.contourf(loss.columns, loss.index, loss, cmap=sns.color_palette("mako_r", as_cmap=True), **look)
        axis.contour(loss.columns, loss.index, loss, colors="white", linewidths=0.25, alpha=0.5, **look)
        path = one[one["part"] == "path"].sort_values("step")
        axis.plot(path["x"], path["y"], path_effects=[withStroke(linewidth=2, foreground=_DARK)], **_PATH)
        axis.plot(*path[["x", "y"]].iloc[0], **_START)
        axis.plot(*path[["x", "y"]].iloc[-1], **_END)
        for side, name in ((axis.xaxis, "x"), (axis.yaxis, "y")):
            side.set_label_text(f"Direction {'xy'.index(name) + 1} ({100 * first[f'share_{name}']:.0f} %)")
            side.set_major_locator(MaxNLocator(4))
    ticks = LogLocator(subs=(1, 2, 5) if levels[-1] < 1000 * levels[0] else (1,))
    words = FuncFormatter(lambda value, _: f"{value:g}")
    colours = figure.colorbar(filled, ax=axes, ticks=ticks, format=words, aspect=35, label="Training loss")
    colours.ax.minorticks_off()
    ends = {"pretrained": _START, "fine-tuned": _END}
    handles = [Line2D([], [], linestyle="", label=label, **mark) for label, mark in ends.items()]
    theme.legend(figure, [], styles, further=handles)
    return figure
