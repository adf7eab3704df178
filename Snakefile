# vit-plasticity: does the plasticity of a transformer's component predict what fine-tunes well?
#
#   snakemake --cores all                                                  the default study: minutes, offline
#   snakemake --configfile workflow/studies/paper.yaml --profile slurm     the paper, on a cluster
#
# Rules only wire paths; the science is the package in src/vit_plasticity, one program per stage.
from snakemake.utils import min_version

min_version("9.27")


if not workflow.configfiles:  # a study is one file: what it leaves out takes the schema's default

    configfile: Path(workflow.current_basedir.get_path_or_uri(secret_free=True)) / "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/plasticity.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/optional.smk"


rule all:
    default_target: True
    input:
        missing_files(),
        study_files(grid.tables()),
        study_files(grid.figures()),
