"""The figures: that each is drawn from whatever tables there are, shows what it must, and is the same twice."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.colors import to_hex, to_rgb
from synthetic_study import DEMO, write_study

from vit_plasticity import correlate, plots
from vit_plasticity.figures import catalog, theme
from vit_plasticity.runtime import cli
from vit_plasticity.study import grid as layout
from vit_plasticity.vit import components

PAPER = {
    "models": ["vit_base", "vit_large", "vit_huge"],
    "datasets": [f"cifar10_c_gaussian_noise_{i}" for i in range(11)],
    "components": ["mha", "fc1", "fc2", "ln2", "ln1", "embed", "full", "mha+fc1", "ffn"],
    "seeds": [0],
}
PREDICTORS = ["bound", "fisher", "parameters", "bound_holding"]
POOLED = "4 datasets, each centred"
ONE = {"models": ["m"], "datasets": ["d"], "components": ["mha"], "seeds": [0]}
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def closed_figures():
    theme.use()
    yield
    plt.close("all")


def tables_of(folder, grid, **options):
    """Tables of a made-up study."""
    write_study(folder / "results", **grid, **options)
    command = ["--study", "synthetic", "--params", json.dumps({"bootstrap": 20, "permutations": 20})]
    correlate.main([*command, "--results", str(folder / "results"), "--output", str(folder / "tables")])
    return folder / "tables"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The default study with some runs diverged: fc2 at the largest rate in one seed, ln1 on contrast always."""
    return tables_of(
        tmp_path_factory.mktemp("demo"),
        DEMO,
        predictors=PREDICTORS,
        diverges=lambda component, lr, seed, dataset, **_: (
            (component == "fc2" and lr > 0.02 and seed == 1) or (component == "ln1" and "contrast" in dataset)
        ),
    )


def draw(name, folder):
    study = catalog.read(folder)
    return catalog.FUNCTIONS[name](study, theme.styles(study.summary["component"].unique()))


def panels(figure):
    """The titles of the panels → their axes."""
    return {axis.get_title() or axis.get_title(loc="left"): axis for axis in figure.axes if axis.axison}


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def crosses(axis):
    """How many crosses a panel has, by colour."""
    found = {}
    for line in axis.lines:
        if line.get_marker() == "x":
            colour = to_hex(line.get_color())
            found[colour] = found.get(colour, 0) + len(line.get_xdata())
    return found


CASES = {
    "one of everything": (ONE, {"lrs": (0.01,), "steps": 3, "every": 3, "blocks": 1, "pairs": 1}),
    "two datasets, no full": (ONE | {"datasets": ["a", "b"], "components": ["mha", "fc1"]}, {"steps": 4, "every": 2}),
    "embedding only": (ONE | {"components": ["embed"]}, {"steps": 4, "every": 2}),
    "sums": (ONE | {"components": ["mha", "mha+fc1", "mha+norm", "full"]}, {"steps": 4, "every": 2}),
    "all diverged": (DEMO, {"steps": 4, "every": 2, "diverges": lambda **_: True}),
    "diverged at once": (ONE, {"steps": 2, "every": 2, "diverges": lambda **_: True}),
    "no evaluation": (ONE, {"steps": 4, "every": 9}),
    "plasticity of further models": (ONE | {"plasticity_models": ["m", "n"]}, {"steps": 4, "every": 2}),
    "names with signs": (
        ONE | {"models": ["m$x_1$"], "datasets": ["$a^b$ & <b>%\\{" + "x" * 60]},
        {"steps": 4, "every": 2},
    ),
}


@pytest.mark.parametrize(("grid", "options"), CASES.values(), ids=CASES)
def test_every_figure_is_drawn_from_any_study(tmp_path, grid, options):
    folder = tables_of(tmp_path, grid, **options)
    for name in layout.FIGURES:
        draw(name, folder).canvas.draw()


@pytest.mark.parametrize("stage", ["plasticity", "probe", "finetune", "measure", "history"])
def test_every_figure_is_drawn_while_only_one_stage_is_done(tmp_path, stage):
    results = write_study(tmp_path / "r", **DEMO, steps=4, every=2, pairs=3, predictors=["bound"])
    pattern = {"measure": "predictors/**/*", "finetune": "finetune/**/runs", "history": "finetune/**/history"}.get(
        stage, f"{stage}/**/*"
    )
    files = map(str, results.glob(f"{pattern}.parquet"))
    correlate.main(["--study", "synthetic", "--output", str(tmp_path / "t"), *files])
    for name in layout.FIGURES:
        draw(name, tmp_path / "t").canvas.draw()


def test_the_papers_size(tmp_path):
    study = catalog.read(tables_of(tmp_path, PAPER, steps=4, every=2, pairs=2))
    styles = theme.styles(PAPER["components"])
    sizes = {name: function(study, styles) for name, function in catalog.FUNCTIONS.items()}
    assert len(panels(sizes["plasticity_by_depth"])) == 33
    assert len(panels(sizes["plasticity_by_component"])) == 3
    assert all(figure.get_figwidth() <= theme.WIDTH for figure in sizes.values())


def test_components_have_one_colour_everywhere_and_no_two_the_same():
    styles = theme.styles(["mha+fc1", "mha", "norm"])
    looks = [(style["color"], style["marker"]) for style in styles.values()]
    assert set(styles) == {*components.MEASURABLE, "embed", "full", "head", "mha+fc1", "norm"}
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == len(looks)
    assert theme.styles(["full"])["full"] == styles["full"]


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_blocks_have_the_marker_of_their_component_and_shades_of_their_own(n):
    blocks = [f"{id}@{block}" for id in ("mha", "fc1") for block in range(n)]
    styles = theme.styles([*blocks, "lora8:mha", "qkv"])
    assert len({style["color"] for style in styles.values()}) == len(styles)
    for component in blocks:
        assert styles[component]["marker"] == styles[components.parse(component).terms[0][0]]["marker"]
    shades = [sum(to_rgb(styles[f"fc1@{block}"]["color"])) for block in range(n)]
    assert shades == sorted(shades, reverse=True)  # from light to dark


def test_blocks_are_numbered_as_their_components_are_named(demo):
    axis = panels(draw("predictors_by_block", demo))["plasticity"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "2", "3"]
    (depth, *_) = panels(draw("plasticity_by_depth", demo)).values()
    assert {x for line in depth.lines for x in line.get_xdata()} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.02, "0.02"), (1, "1"), (2000, "2000"), (2e4, "20k"), (1e6, "1M"), (2.5e6, "2.5M"), (5e7, "50M"), (1e9, "1G")],
)
def test_ticks_of_large_numbers_are_short(value, text):
    assert theme._short(value) == text


def test_components_stand_in_the_order_of_measured_plasticity(demo):
    (axis,) = panels(draw("plasticity_by_component", demo)).values()
    assert [label.get_text() for label in axis.get_xticklabels()] == ["MHA", "FC1", "FC2", "LN2", "LN1"]
    for axis in panels(draw("relative_gain", demo)).values():
        assert [label.get_text() for label in axis.get_xticklabels()] == ["MHA", "FC1", "FC2", "LN2", "LN1", "Full"]


def test_there_is_a_panel_per_dataset_and_one_over_all(demo):
    assert list(panels(draw("plasticity_by_depth", demo))) == sorted(DEMO["datasets"])
    assert list(panels(draw("relative_gain", demo))) == ["mean of 3 datasets", *sorted(DEMO["datasets"])]
    assert list(panels(draw("plasticity_vs_accuracy", demo))) == [POOLED, *sorted(DEMO["datasets"])]


def test_the_correlation_and_its_interval_stand_in_the_panel(demo):
    table = pq.read_table(demo / "correlation.parquet").to_pandas()
    table = table.query("predictor == 'plasticity' and outcome == 'accuracy' and statistic == 'pearson'")
    axes = panels(draw("plasticity_vs_accuracy", demo))
    pooled = table[table["scope"] == "model"].iloc[0]
    digits = table[table["dataset"] == "digits"].iloc[0]
    for title, found in ((POOLED, pooled), ("digits", digits)):
        (words,) = (text.get_text() for text in axes[title].texts)
        interval = f"[{found['ci_low']:.2f}, {found['ci_high']:.2f}]".replace("-", "−")
        assert words.startswith(f"r = {found['estimate']:.2f} {interval}".replace("r = -", "r = −"))
        assert words.endswith(f"n = {found['n']}")


def rows_of(axis):
    """The names along y → the x of the points drawn there."""
    names = [label.get_text() for label in axis.get_yticklabels()]
    points = [(*line.get_xydata()[0], line) for line in axis.lines if line.get_marker() == "o"]
    return {name: [x for x, y, _ in points if round(y) == i] for i, name in enumerate(names)}


def test_every_predictor_has_a_row_the_null_first(demo):
    table = pq.read_table(demo / "correlation.parquet").to_pandas()
    table = table.query("scope == 'model' and outcome == 'accuracy'").set_index(["predictor", "statistic"])["estimate"]
    (axis,) = panels(draw("predictors_correlation", demo)).values()
    rows = rows_of(axis)
    assert next(iter(rows)) == "parameters" and len(rows["parameters"]) == 1
    assert set(rows) == {"parameters", "plasticity", "bound", "bound holding", "fisher"}
    assert rows["fisher"] == [table["fisher", "spearman"], table["fisher", "spearman_given_parameters"]]
    assert rows["parameters"] == [table["parameters", "spearman"]]


def test_regret_has_a_row_per_rule_in_percentage_points(demo):
    table = pq.read_table(demo / "regret.parquet").to_pandas().query("scope == 'model'").set_index("rule")["regret"]
    (axis,) = panels(draw("rules_regret", demo)).values()
    rows = rows_of(axis)
    assert next(iter(rows)) == "parameters" and {"always MHA", "random", "validation", "fisher"} <= set(rows)
    assert rows["always MHA"] == [pytest.approx(100 * table["always-mha"])]


def test_ranks_of_each_predictor_stand_in_a_panel_of_its_own(demo):
    axes = panels(draw("predictors_vs_accuracy", demo))
    assert next(iter(axes)) == "parameters" and len(axes) == 5
    whole = pq.read_table(demo / "predictors.parquet").to_pandas().query("predictor == 'plasticity'")
    assert whole["value"].notna().all()
    points = np.concatenate([line.get_xydata() for line in axes["plasticity"].lines if line.get_marker() == "o"])
    assert points.min() >= 1 and points.max() <= 5


def test_both_bounds_stand_against_the_measurement(demo):
    (axis,) = panels(draw("bounds_vs_plasticity", demo)).values()
    table = pq.read_table(demo / "predictors.parquet").to_pandas().dropna(subset=["block"])
    for name, white in (("bound", False), ("bound_holding", True)):
        lines = [line for line in axis.lines if line.get_marker() not in ("None", "", None)]
        drawn = np.concatenate([line.get_xdata() for line in lines if (line.get_markerfacecolor() == "white") == white])
        known = table[table["predictor"] == name].groupby(["component", "block"])["value"].mean()
        assert sorted(drawn) == pytest.approx(sorted(known))


def test_the_figures_of_any_predictor(demo, tmp_path):
    command = ["--tables", str(demo), "--output", str(tmp_path), "--predictor"]
    plots.main([*command, "fisher"])
    assert {path.stem for path in tmp_path.iterdir()} == {
        "fisher_by_component",
        "fisher_by_depth",
        "fisher_vs_accuracy",
    }
    with pytest.raises(cli.InputError, match=r"'x': these tables have .*plasticity"):
        plots.main([*command, "x"])


def test_costs_stand_with_their_front(demo):
    axes = [axis for axis in draw("accuracy_vs_costs", demo).axes if axis.axison]
    assert [axis.get_xlabel() for axis in axes[:3]] == ["Values trained", "Peak memory (MB)", "Seconds per step"]
    summary = pq.read_table(demo / "summary.parquet").to_pandas().query("dataset == 'digits' and on_front")
    (front,) = [line for line in axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert sorted(front.get_xdata()) == sorted(summary["n_trained"])


def test_ranks_stand_on_a_line_and_bars_join_those_that_are_alike(demo):
    (axis,) = panels(draw("critical_difference", demo)).values()
    ranking = pq.read_table(demo / "ranking.parquet").to_pandas()
    points = [line.get_xdata()[0] for line in axis.lines if line.get_marker() not in ("None", "", None)]
    assert points == sorted(ranking["rank_mean"]) and "critical difference 3.8, 4 datasets" in texts(axis.figure)
    assert any(line.get_linewidth() == 2 for line in axis.lines)


def test_every_predictor_by_block_is_a_heat_map(demo):
    axes = panels(draw("predictors_by_block", demo))
    assert {"plasticity", "fisher", "bound", "bound holding"} <= set(axes)
    table = pq.read_table(demo / "predictors.parquet").to_pandas().dropna(subset=["block"])
    mha = table.query("predictor == 'plasticity' and component == 'mha'").groupby("block")["value"].mean()
    (image,) = axes["plasticity"].images
    assert [label.get_text() for label in axes["plasticity"].get_yticklabels()][1] == "MHA"
    assert image.get_array()[1].tolist() == pytest.approx(mha.tolist())


def test_pooled_points_are_centred_and_as_many_as_the_coefficient_says(demo):
    axis = panels(draw("plasticity_vs_accuracy", demo))[POOLED]
    points = np.concatenate([line.get_xydata() for line in axis.lines])
    assert len(points) == 19  # ln1 diverged on one of the four datasets
    assert points.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_diverged_runs_are_marked(demo):
    colour = {c: to_hex(style["color"]) for c, style in theme.styles([]).items()}
    by_lr = panels(draw("accuracy_by_lr", demo))
    assert crosses(by_lr["digits"]) == {colour["fc2"]: 1}
    assert crosses(by_lr["digits_c_contrast_5"]) == {colour["fc2"]: 1, colour["ln1"]: 3}
    loss = panels(draw("dynamics", demo))
    assert crosses(loss["digits"]) == {colour["fc2"]: 1}
    assert crosses(loss["digits_c_contrast_5"]) == {colour["fc2"]: 1, colour["ln1"]: 6}
    for name in ("relative_gain", "accuracy_vs_costs"):
        assert crosses(panels(draw(name, demo))["digits_c_contrast_5"]) == {colour["ln1"]: 1}
    assert "diverged" in texts(draw("accuracy_by_lr", demo)) and "diverged" in texts(draw("dynamics", demo))


def test_crosses_stay_inside_what_the_other_runs_span(demo):
    for axis in draw("dynamics", demo).axes:
        low, high = axis.get_ylim()
        for line in axis.lines:
            values = np.asarray(line.get_ydata(), dtype=float)
            assert ((values >= low) & (values <= high)).all()


def test_dynamics_by_rate_are_means_over_datasets_and_seeds_of_finite_values(demo):
    history = pq.read_table(demo / "history.parquet").to_pandas()
    axes = {axis.get_title(loc="left"): axis for axis in draw("dynamics_by_lr", demo).axes}
    assert [title for title in axes if title] == ["LN1", "MHA", "LN2", "FC1", "FC2", "Full"]
    runs = history.query("component == 'mha'")
    rates = sorted(runs["lr"].unique())
    assert len(axes["MHA"].lines) == len(rates)
    for lr, line in zip(rates, axes["MHA"].lines, strict=True):
        losses = runs[runs["lr"] == lr]
        losses = losses[np.isfinite(losses["loss"])]
        span = (losses["step"] - 1) * 40 // losses["step"].max()
        assert line.get_ydata() == pytest.approx(losses.groupby(span)["loss"].mean().to_numpy())


def test_full_is_a_line_at_its_chosen_rate(demo):
    summary = pq.read_table(demo / "summary.parquet").to_pandas().set_index(["dataset", "component"])
    axis = panels(draw("accuracy_by_lr", demo))["digits"]
    levels = [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "--"]
    assert levels == [pytest.approx(100 * summary.loc[("digits", "full"), "test_accuracy_mean"])]


def test_shifted_test_sets_stand_beside_the_own_one(tmp_path):
    grid = ONE | {"datasets": ["digits", "other"], "components": ["mha", "ln1"], "seeds": [0, 1]}
    folder = tables_of(tmp_path, grid, steps=4, every=2, evaluate_on={"digits": ["digits_c_blur_5", "dim"]})
    axes = panels(draw("shifted", folder))
    assert list(axes) == ["digits"]
    assert [label.get_text() for label in axes["digits"].get_xticklabels()] == ["own test set", "c_blur_5", "dim"]
    runs = pq.read_table(folder / "finetune.parquet").to_pandas().query("chosen and dataset == 'digits'")
    drawn = {to_hex(line.get_color()): line.get_ydata() for line in axes["digits"].lines if len(line.get_ydata()) == 3}
    for component, style in theme.styles([]).items():
        if component in ("mha", "ln1"):
            own = 100 * runs.query("component == @component")["test_accuracy"].mean()
            assert drawn[to_hex(style["color"])] == pytest.approx([own, own - 20, own - 20])


def test_names_are_shown_as_they_are():
    figure, (axis,) = theme.panels(1)
    theme.title(axis, "$a_1$ <b>")
    figure.canvas.draw()
    assert axis.get_title() == r"\$a_1\$ <b>"
    assert theme.plain("x" * 50) == "x" * 18 + "…" + "x" * 15


def test_the_command_writes_all_figures_without_torch_and_always_the_same(demo, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "vit_plasticity.plots", "--tables", demo]
    done = subprocess.run([*command, "--output", tmp_path / "one"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "torch" not in done.stderr
    plots.main(["--tables", str(demo), "--output", str(tmp_path / "two")])
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(f"{name}.{kind}" for name in layout.FIGURES for kind in ("png", "pdf"))
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_tables_that_are_missing_or_not_ours_are_refused(demo, tmp_path):
    with pytest.raises(cli.InputError, match=r"predictors.parquet is missing: write the tables with"):
        catalog.read(tmp_path)
    write_study(tmp_path, **ONE, steps=2, every=2)
    (tmp_path / "plasticity/m/d/mha.parquet").rename(tmp_path / "predictors.parquet")
    with pytest.raises(cli.InputError, match="written by stage 'plasticity'; name a folder that correlate wrote"):
        catalog.read(tmp_path)


def test_every_figure_and_page_has_a_caption():
    captions = {path.stem for path in (Path(__file__).parents[3] / "workflow/report").glob("*.rst")}
    assert {*layout.FIGURES, *layout.PAGES} <= captions
    assert catalog.FUNCTIONS.keys() == layout.FIGURES.keys()
