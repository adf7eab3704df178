"""What Snakemake would run, from a dry run in this process: some tenths of a second, where a command costs seconds."""

import logging
import os
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from processes import ROOT, SMOKE, write_config
from snakemake.api import SnakemakeApi
from snakemake.logging import logger
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings


class Job(NamedTuple):
    """A job that would run. wildcards: their values in the order of the rule, as one text."""

    rule: str
    wildcards: str


class _Jobs(logging.Handler):
    """Collects the jobs that a dry run announces."""

    def __init__(self):
        super().__init__()
        self.jobs = []

    def emit(self, record):
        if getattr(record, "event", None) == "job_info" and record.rule_name != "all":
            self.jobs.append(Job(record.rule_name, "/".join(map(str, (record.wildcards or {}).values()))))


def plan(directory, config=SMOKE, checkout=ROOT, targets=()):
    """The jobs that Snakemake would run in the folder `directory`, as a list of `Job`; `config`: a file or a dict;
    `targets`: rules or files, by default all of the study.

    Raises what Snakemake raises. Leaves this process's folder, environment and search path as they were.
    """
    directory = Path(directory)
    if isinstance(config, dict):
        config = write_config(directory.with_name(f"{directory.name}.yaml"), config)
    here, path, handler = Path.cwd(), [*sys.path], _Jobs()
    output = OutputSettings(dryrun=True, quiet={Quietness.ALL})
    try:
        with mock.patch.dict(os.environ), SnakemakeApi(output) as api:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=2),
                config_settings=ConfigSettings(configfiles=[Path(config)]),
                snakefile=checkout / "Snakefile",
                workdir=directory,
            )
            logger.addHandler(handler)
            workflow.dag(DAGSettings(targets=set(targets))).execute_workflow(pseudo_executor="dryrun")
    finally:
        logger.removeHandler(handler)
        os.chdir(here)
        sys.path[:] = path
    return handler.jobs
