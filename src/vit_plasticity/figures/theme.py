"""The look of all figures: one colour and marker per component, one grid of panels, one way to save."""

import math

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from vit_plasticity.analysis.summary import order_of_component
from vit_plasticity.runtime.files import atomic
from vit_plasticity.vit.components import parse

WIDTH = 7.0
"""Inches across a page; a figure of one panel takes half of it, a column."""
GREY, LIGHT_GREY = "#7f7f7f", "#c4c4c4"
NULL_COLOR = "#c1121f"

_BLUE, _ORANGE, _GREEN, _RED, _PINK, _BROWN, _, _, _, _SKY = sns.color_palette("colorblind").as_hex()
_BY_ID = {
    "ln1": (_GREEN, "v"),
    "mha": (_RED, "o"),
    "ln2": (_ORANGE, "^"),
    "fc1": (_BLUE, "s"),
    "fc2": (_SKY, "D"),
    "embed": (_PINK, "P"),
    "full": ("#222222", "*"),
    "head": (GREY, "X"),
}
_OTHERS = [("#5b3a8c", "h"), (_BROWN, "p"), ("#7a7a00", "d"), ("#8c1d40", "8"), ("#4f6f6f", "H"), ("#b07aa1", "<")]
_OTHERS += [("#3b5f8a", ">")]
DIVERGED = Line2D([], [], linestyle="", marker="x", color="#222222", markersize=4, label="diverged")


def use():
    """Set the theme of every figure drawn from here on."""
    sns.set_theme(
        context="paper",
        style="ticks",
        rc={
            "font.family": "DejaVu Sans",
            "font.size": 6,
            "axes.titlesize": 7,
            "axes.labelsize": 7,
            "figure.labelsize": 7.5,
            "xtick.labelsize": 6.5,
            "ytick.labelsize": 6.5,
            "legend.fontsize": 7,
            "axes.linewidth": 0.6,
            "axes.edgecolor": "#555555",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "grid.linewidth": 0.4,
            "grid.color": "#e4e4e4",
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "xtick.minor.width": 0.4,
            "ytick.minor.width": 0.4,
            "xtick.minor.size": 1.5,
            "ytick.minor.size": 1.5,
            "lines.linewidth": 1.1,
            "pdf.fonttype": 42,
            "savefig.dpi": 200,
        },
    )


def styles(components):
    """Component → {"color", "marker"}, the same in every figure of a study.

    Blocks and masks of one id have its marker, in shades of its colour from the first to the last; parts, sums and
    adapters take further colours in turn.
    """
    related, others = {}, []
    for component in sorted((c for c in components if c not in _BY_ID), key=order_of_component):
        ids, adapted = {id for id, _ in parse(component).terms}, parse(component).rank
        place = related.setdefault(*ids, []) if len(ids) == 1 and ids < _BY_ID.keys() and not adapted else others
        place.append(component)
    chosen = _BY_ID | {c: _OTHERS[i % len(_OTHERS)] for i, c in enumerate(others)}
    for id, named in related.items():
        colour, marker = _BY_ID[id]
        ends = sns.light_palette(colour, 8)[3], sns.dark_palette(colour, 8)[3]
        # An even number of shades leaves out the one in the middle, which is the whole component's.
        shades = sns.blend_palette([ends[0], colour, ends[1]], len(named) + len(named) % 2).as_hex()
        chosen |= {c: (shade, marker) for c, shade in zip(named, shades[: len(named)], strict=True)}
    return {c: {"color": colour, "marker": marker} for c, (colour, marker) in chosen.items()}


def plain(text):
    """A name from a config as the text of a figure: no mathematics, and the middle left out where it is long."""
    if len(text) > 34:
        text = f"{text[:18]}…{text[-15:]}"
    return text.replace("$", r"\$")


def words(name):
    """The name of a predictor or rule as a reader's words: gradient_norm → gradient norm; always-mha → always MHA."""
    if name.startswith("always-"):
        return f"always {parse(name.removeprefix('always-')).label}"
    return plain(name.replace("_", " "))


def axis_label(predictor):
    """A predictor's name and unit as the label of an axis."""
    units = {"plasticity": "mean rate of change", "parameters": "log10 of the values trained"}
    name = words(predictor)[:1].upper() + words(predictor)[1:]
    return f"{name} ({units[predictor]})" if predictor in units else name


def panels(n, *, height=1.55, columns=4, **options):
    """A figure of n panels, at most `columns` in a row: (figure, list of n axes). Further options: of plt.subplots.

    The rows are as even as they can be: five panels stand as three and two, not as four and one.
    """
    rows = math.ceil(n / columns)
    columns = math.ceil(n / rows)
    width = {1: WIDTH / 2, 2: 0.72 * WIDTH}.get(columns, WIDTH)
    size = (width, 0.5 + height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for axis in axes.flat[n:]:
        axis.set_axis_off()
    for axis in axes.flat[max(0, n - columns) : n]:
        axis.tick_params(labelbottom=True)  # where axes are shared, also above a place without a panel
    return figure, list(axes.flat[:n])


def title(axis, text, **options):
    """Name a panel; the lines of `text` are names from a config."""
    axis.set_title("\n".join(map(plain, text.split("\n"))), pad=3, **options)


def component_axis(axis, components):
    """Component labels along x, at 0, 1, …"""
    labels = [parse(c).label for c in components]
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if max(map(len, labels)) > 4 else {}
    axis.set_xticks(range(len(labels)), labels, **slanted)
    axis.set_xlim(-0.6, len(labels) - 0.4)


def log_x(axis):
    """Make x logarithmic, its ticks plain numbers. Called when the data are drawn, whose range decides the ticks."""
    axis.set_xscale("log")
    _plain_ticks(axis.xaxis, axis.get_xlim())


def log_y(axis):
    """Make y logarithmic, as `log_x` does with x."""
    axis.set_yscale("log")
    _plain_ticks(axis.yaxis, axis.get_ylim())


def _plain_ticks(ticks, limits):
    decades = math.log10(limits[1] / limits[0])
    if decades < 0.6:  # where a LogLocator would show one tick, or all
        ticks.set_major_locator(MaxNLocator(4))
        ticks.set_minor_locator(NullLocator())
    else:
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,)))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    ticks.set_minor_formatter(NullFormatter())


def _short(value):
    """A tick as text: 20000 → 20k, 1000000 → 1M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit > 1e3 or value >= 10 * unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def points(axis, x, y, style, *, span=None, size=4, hollow=False, **options):
    """Markers without a line; span: half the length of vertical bars, or a pair (below, above)."""
    look = {"markeredgecolor": "white", "markeredgewidth": 0.3, "markersize": _size(style, size)} | options
    if hollow:
        look |= {"markeredgecolor": style["color"], "markeredgewidth": 0.8, "markerfacecolor": "white"}
    axis.errorbar(x, y, yerr=span, linestyle="", elinewidth=0.7, **look, **style)


def _size(style, size):
    """Markers of one size look unequal: stars and plus signs small."""
    return size * {"*": 1.6, "P": 1.3}.get(style["marker"], 1.0)


def crosses(axis, x, style, y=None):
    """Crosses for what diverged: at the foot of the panel, or at y."""
    if not len(x):
        return
    foot = {"transform": axis.get_xaxis_transform()} if y is None else {}
    y = [0.04] * len(x) if y is None else y
    axis.plot(x, y, linestyle="", marker="x", markersize=4, color=style["color"], clip_on=False, zorder=4, **foot)


def legend(figure, components, styles, *, linestyle="", marker=True, further=()):
    """One legend above all panels: components in the vocabulary's order, then further handles."""
    handles = []
    for c in sorted(components, key=order_of_component):
        style = styles[c] if marker else {"color": styles[c]["color"]}
        size = _size(styles[c], 4)
        handles.append(
            Line2D([], [], linestyle=linestyle, markersize=size, markeredgewidth=0, label=parse(c).label, **style)
        )
    handles += further
    if handles:
        columns = min(len(handles), int(figure.get_figwidth() / 0.75))
        gaps = {"handletextpad": 0.4, "columnspacing": 1.2, "borderpad": 0.1}
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, **gaps)


def note(sentence):
    """A figure that says why there is nothing to see."""
    figure, (axis,) = panels(1)
    axis.set_axis_off()
    axis.text(0.5, 0.5, sentence, ha="center", va="center", transform=axis.transAxes, fontsize=7, color=GREY)
    return figure


def save(figure, folder, name):
    """Write NAME.png and NAME.pdf, free of dates so that equal figures are equal files, and close the figure."""
    for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        with atomic(folder / f"{name}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, metadata=metadata)
        figure.set_layout_engine("none")  # the first drawing placed everything; the next need not do so again
    plt.close(figure)
