"""The workflow as a module of another one: `module vit: snakefile: …, config: …`."""

from collections import Counter

import pytest
from planning import plan
from processes import ROOT, smoke_config, snakemake, write_config
from snakemake.exceptions import WorkflowError

USES = f"""
module vit:
    snakefile: "{ROOT}/Snakefile"
    config: config["vit"]


use rule * from vit as vit_*
"""
TWICE = f"""
module one:
    snakefile: "{ROOT}/Snakefile"
    config: config["vit"] | {{"study": "one", "seeds": [7]}}
    prefix: "first/"


use rule * from one as one_*


module two:
    snakefile: "{ROOT}/Snakefile"
    config: config["vit"] | {{"study": "two"}}


use rule * from two as two_*


rule both:
    default_target: True
    input:
        rules.one_all.input,
        rules.two_all.input,
"""
OWN = """
onstart:
    from vit_plasticity.runtime import client

    client.start_worker()


rule own:
    input:
        "resources/datasets/digits",
    output:
        "own.txt",
    shell:
        "test -f {input}/dataset.json && echo {config[answer]} $VIT_PLASTICITY_WORKER > {output}"
"""


def other_workflow(folder, text, **keys):
    """A workflow in a folder of its own that uses this one, and its configuration, which has other keys too."""
    folder.mkdir()
    (folder / "Snakefile").write_text(text)
    return write_config(folder / "mine.yaml", {"answer": 42, "vit": smoke_config(), **keys})


def jobs(planned, prefix=""):
    return Counter((job.rule.removeprefix(prefix), job.wildcards) for job in planned if job.rule.startswith(prefix))


def test_the_same_jobs_as_alone_under_other_names(tmp_path):
    text = USES + "\nrule mine:\n    default_target: True\n    input:\n        rules.vit_all.input,\n"
    config = other_workflow(tmp_path / "other", text)
    planned = plan(tmp_path / "work", config, checkout=tmp_path / "other")
    assert all(job.rule.startswith("vit_") or job.rule == "mine" for job in planned)
    assert jobs(planned, "vit_") == jobs(plan(tmp_path / "alone"))


def test_two_studies_in_one_workflow(tmp_path):
    config = other_workflow(tmp_path / "other", TWICE)
    planned = plan(tmp_path / "work", config, checkout=tmp_path / "other")
    assert sum(n for (rule, _), n in jobs(planned, "one_").items() if rule == "finetune") == 4
    assert jobs(planned, "two_") == jobs(plan(tmp_path / "alone"))


def test_its_configuration_is_refused_as_ever(tmp_path):
    config = other_workflow(tmp_path / "other", USES, vit=smoke_config(finetune__step=3))
    with pytest.raises(WorkflowError, match=r"finetune\.step: unknown key; did you mean steps\?"):
        plan(tmp_path / "work", config, checkout=tmp_path / "other")


def test_stages_run_beside_rules_of_the_other_workflow_and_its_own_config(tmp_path):
    config = other_workflow(tmp_path / "other", USES + OWN)
    arguments = ("--config", "answer=43", "--snakefile", tmp_path / "other" / "Snakefile")
    done = snakemake(tmp_path / "work", "own", *arguments, config=config)
    assert (tmp_path / "work" / "own.txt").read_text().startswith('43 {"socket"')
    assert "vit_fetch_dataset" in done.stdout
