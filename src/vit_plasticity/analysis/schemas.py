"""The columns of a study's tables: what `correlate` writes and `plots` reads. Nothing but names and types.

Keys come first. Accuracies lie in [0, 1]; null stands for what does not exist (the accuracy of a diverged run, say).
"""

import pyarrow as pa

from vit_plasticity.analysis import dictionary
from vit_plasticity.runtime.cli import InputError

_GROUP = "model dataset component"
_CELL = f"{_GROUP} seed"

COLUMNS = {
    "rates": f"{_GROUP} block pair source_image target_image rate",
    "rates_by_block": f"{_GROUP} block rate_mean rate_std n_pairs ci_low ci_high",
    "probe": "model dataset accuracy converged n_iter n_train n_test n_features image_size stored_side duration_s",
    "finetune": f"{_CELL} lr outcome steps steps_trained best_step val_accuracy test_accuracy "
    "test_balanced_accuracy largest_class_share best_step_before_divergence val_accuracy_before_divergence chosen "
    "n_parameters n_trained n_train n_val n_test batch_size duration_s step_duration_s peak_memory_mb git_commit "
    "device resolved",
    "history": f"{_CELL} lr step loss gradient_norm component_gradient_norm step_lr val_loss val_accuracy",
    "shifted": f"{_CELL} evaluated_on lr accuracy n_test",
    "summary": f"{_GROUP} plasticity plasticity_ci_low plasticity_ci_high bound lr n_seeds val_accuracy_mean "
    "test_accuracy_mean test_accuracy_std probe_accuracy relative_gain lr_spread n_runs n_diverged trained_fraction "
    "gain_over_head gap_to_full shifted_accuracy_mean n_trained peak_memory_mb step_duration_s on_front resolved",
    "ranking": "model component n_datasets plasticity_mean test_accuracy_mean relative_gain_mean rank_mean",
    "predictors": f"{_GROUP} predictor block value ci_low ci_high n duration_s",
    "correlation": "predictor scope model dataset outcome statistic estimate n n_blocks ci_low ci_high p_value",
    "differences": "predictor_a predictor_b scope model statistic estimate_a estimate_b difference n n_blocks ci_low "
    "ci_high",
    "regret": "rule scope model dataset component test_accuracy regret regret_max n n_diverged ci_low ci_high",
    "tests": "model outcome component_a component_b n_datasets mean_difference t_statistic t_p_value t_p_value_holm "
    "wilcoxon_statistic wilcoxon_p_value wilcoxon_p_value_holm",
    "probes_by_block": f"{_CELL} tap block accuracy converged n_iter n_train n_test n_features",
    "loss_landscape": f"{_CELL} lr part step x y loss distance share_x share_y end_error n",
}
"""Table → its columns, in order."""

OPTIONAL = ("resolved",)
"""Columns that jobs write only where they have something to say."""

INPUTS = ("rates", "probes_by_block", "loss_landscape")
"""Those that only jobs write; the others are tables of a study."""

UNIQUE = {
    "rates_by_block": "model dataset component block",
    "predictors": f"{_GROUP} predictor block",
    "probe": "model dataset",
    "finetune": f"{_CELL} lr",
    "shifted": f"{_CELL} evaluated_on",
}
"""Table → the columns that identify a row."""

_TYPES = {"text": pa.string(), "whole": pa.int64(), "truth": pa.bool_()}
"""Kind of a column → its type, for all but the measurements, which are float64."""


def columns(name):
    """The columns of a table, as a list."""
    return COLUMNS[name].split()


def schema(name):
    """The Arrow schema of a table."""
    return pa.schema([(column, _TYPES.get(dictionary.COLUMNS[column].kind, pa.float64())) for column in columns(name)])


def conform(table, name):
    """An Arrow table with the columns of `name` first and of the right types; further columns are kept behind them.

    None gives a table without rows; a column of OPTIONAL that is missing is null. Raises InputError for another column
    that is missing, or values of another type.
    """
    wanted = schema(name)
    if table is None:
        return wanted.empty_table()
    for column in ({*OPTIONAL} & {*wanted.names}) - {*table.column_names}:
        table = table.append_column(wanted.field(column), pa.nulls(len(table), wanted.field(column).type))
    missing = [column for column in wanted.names if column not in table.column_names]
    if missing:
        raise InputError(
            f"{name}: column {missing[0]!r} is missing from the tables given, which have "
            f"{', '.join(table.column_names)}; make them again with this version"
        )
    further = [field for field in table.schema if field.name not in wanted.names]
    target = pa.schema([*wanted, *further])
    try:
        return table.select(target.names).cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{name}: a column is of another type than it should be ({error}); make the tables again"
        ) from error
