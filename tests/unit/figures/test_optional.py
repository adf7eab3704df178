"""The figures that are asked for by name: drawn from what their stages write, they show what it says."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from vit_plasticity import plots
from vit_plasticity.analysis import schemas, tables
from vit_plasticity.figures import catalog, theme
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import grid as layout

pytestmark = pytest.mark.filterwarnings("error")
STAGES = {"probes_by_block": "taps", "loss_landscape": "landscape"}


@pytest.fixture(autouse=True)
def closed_figures():
    theme.use()
    yield
    plt.close("all")


def write(path, table, rows, **key):
    """A table of an optional figure; what a row leaves out is null."""
    names = [name for name in schemas.columns(table) if name not in key]
    columns = {name: [row.get(name) for row in rows] for name in names}
    tables.write(path, columns, study="s", stage=STAGES[table], rev=1, key=key, settings={}, inputs={})
    return path


def probes(folder, dataset="digits", components=("mha", "ln1"), accuracy=lambda component, depth: 0.5 + depth / 10):
    """Probes of a model of two blocks and of cells fine-tuned from it."""
    taps = [("embed", None, 0)] + [(tap, block, block + 1) for block in (0, 1) for tap in ("mha", "ffn")]
    rows = [
        {"component": one, "seed": one and 0, "tap": tap, "block": block, "accuracy": accuracy(one, depth)}
        | {"converged": True, "n_iter": 9, "n_train": 90, "n_test": 50, "n_features": 8}
        for one in (None, *components)
        for tap, block, depth in taps
    ]
    return write(folder / f"{dataset}.parquet", "probes_by_block", rows, model="m", dataset=dataset)


def landscape(folder, component="mha", seed=0, scale=1.0, dataset="digits"):
    """A bowl, and a path into it; scale None: every run diverged."""
    shared = {"lr": 0.1, "share_x": 0.9, "share_y": 0.08, "end_error": 0.0, "n": 20}
    xs, ys, path = np.linspace(-3, 1, 5), np.linspace(-1, 1, 6), [(-2.0, -0.5), (-1.0, 0.5), (0.0, 0.0)]
    rows = [{}]
    if scale:
        rows = [{"part": "grid", "x": x, "y": y, "loss": scale * (0.1 + x * x + y * y)} for y in ys for x in xs]
        rows += [
            {"part": "path", "step": 5 * i, "x": x, "y": y, "loss": 1.0, "distance": 0.0}
            for i, (x, y) in enumerate(path)
        ]
        rows = [row | shared for row in rows]
    key = {"model": "m", "dataset": dataset, "component": component, "seed": seed}
    return write(folder / f"{component}{seed}{dataset}.parquet", "loss_landscape", rows, **key)


def draw(name, *files):
    rows = catalog.read_files(name, files)
    figure = catalog.OPTIONAL[name](rows, theme.styles(rows["component"].dropna().unique()))
    figure.canvas.draw()
    return figure


def panels(figure):
    """The titles of the panels → their axes."""
    return {axis.get_title(): axis for axis in figure.axes if axis.get_title()}


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_probes_have_a_line_per_model_and_a_panel_per_tap(tmp_path):
    def accuracy(component, depth):
        return 1.0 if component == "mha" and depth == 2 else 0.5 + depth / 10 + 0.05 * (component is not None)

    axes = panels(draw("probes_by_block", probes(tmp_path, accuracy=accuracy)))
    assert [*axes] == ["digits\nafter attention", "digits\nafter feed-forward"]
    for axis in axes.values():
        lines = {to_hex(line.get_color()): line for line in axis.lines if line.get_linestyle() == "-"}
        (dashed,) = (line for line in axis.lines if line.get_linestyle() == "--")
        assert dashed.get_xydata().tolist() == [[0, 0.5], [1, 0.6], [2, 0.7]]
        mha = lines[to_hex(theme.styles([])["mha"]["color"])]
        assert mha.get_ydata().tolist() == [0.55, pytest.approx(0.65), 0.99]  # all right: half an image below 1
        shown = {text.get_text() for text in axis.get_yticklabels()}
        assert {"60", "80", "90", "99"} <= shown


def test_probes_of_what_diverged_and_of_the_pretrained_model_alone(tmp_path):
    one = draw("probes_by_block", probes(tmp_path, components=()))
    assert "Pretrained" in texts(one) and len(panels(one)) == 2
    gone = probes(tmp_path, accuracy=lambda component, depth: None if component == "ln1" else 0.5)
    assert "LN1" in texts(draw("probes_by_block", gone))


def test_probes_of_many_datasets(tmp_path):
    figure = draw("probes_by_block", *(probes(tmp_path, f"d{i}") for i in range(11)))
    assert len(panels(figure)) == 22 and figure.get_figwidth() <= theme.WIDTH


def test_the_landscape_shows_the_path_from_start_to_end_on_one_scale_of_colours(tmp_path):
    files = [landscape(tmp_path, "mha"), landscape(tmp_path, "fc1", scale=10.0), landscape(tmp_path, "ln1", scale=None)]
    figure = draw("loss_landscape", *files)
    axes = panels(figure)
    assert [*axes] == ["MHA", "FC1", "LN1"]
    for title in ("MHA", "FC1"):
        path, start, end = axes[title].lines
        assert path.get_xydata().tolist() == [[-2, -0.5], [-1, 0.5], [0, 0]]
        assert (start.get_xydata().tolist(), end.get_xydata().tolist()) == ([[-2, -0.5]], [[0, 0]])
        assert axes[title].get_xlabel() == "Direction 1 (90 %)" and axes[title].get_ylabel() == "Direction 2 (8 %)"
    limits = {tuple(axes[title].collections[0].get_clim()) for title in ("MHA", "FC1")}
    assert len(limits) == 1
    assert "every run\ndiverged" in texts(figure) and not axes["LN1"].lines


def test_what_differs_between_landscapes_stands_in_the_titles(tmp_path):
    files = [landscape(tmp_path, seed=seed, dataset=dataset) for seed in (0, 1) for dataset in ("a", "$b")]
    assert {*panels(draw("loss_landscape", *files))} == {
        f"MHA\n{dataset}, seed {seed}" for dataset in ("a", r"\$b") for seed in (0, 1)
    }


def test_a_landscape_with_losses_that_are_no_numbers(tmp_path):
    draw("loss_landscape", landscape(tmp_path, scale=float("nan")), landscape(tmp_path, "fc1"))
    assert "Every run of these cells diverged" in " ".join(
        texts(draw("loss_landscape", landscape(tmp_path, scale=None)))
    )


def test_the_command_writes_the_figure_asked_for_and_nothing_else(tmp_path):
    file = str(landscape(tmp_path))
    for folder in ("one", "two"):
        plots.main(["--optional", "loss_landscape", "--files", file, "--output", str(tmp_path / folder)])
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"loss_landscape.png", "loss_landscape.pdf"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_tables_of_another_stage_are_refused(tmp_path):
    with pytest.raises(InputError, match="was written by stage 'landscape'; probes_by_block needs 'taps'"):
        catalog.read_files("probes_by_block", [landscape(tmp_path)])


@pytest.mark.parametrize("given", [[], ["--optional", "loss_landscape"], ["--tables", "t", "--files", "f"]])
def test_figures_are_drawn_from_tables_or_from_files(given, tmp_path, capsys):
    with pytest.raises(SystemExit):
        plots.main([*given, "--output", str(tmp_path)])
    assert "give either --tables DIR, or --optional NAME and its --files" in capsys.readouterr().err


def test_every_optional_figure_has_a_function_a_table_and_a_caption():
    captions = {path.stem for path in (Path(__file__).parents[3] / "workflow/report").glob("*.rst")}
    assert catalog.OPTIONAL.keys() == layout.OPTIONAL_FIGURES.keys() == STAGES.keys()
    assert {*layout.OPTIONAL_FIGURES} <= captions & {*schemas.INPUTS}
    assert {*STAGES.values()} == layout.OPTIONAL_PATHS.keys()
