rule correlate:
    input:
        measurements(),
        cells(),
    output:
        study_tables(),
    log:
        "<logs>/correlate.log",
    conda:
        "../../envs/tables.yaml"
    params:
        settings=settings("analysis"),
        grid=studies.json_text(GRID),
        rev=1,
    localrule: True
    shell:
        "python -m vit_plasticity.correlate --results {RESULTS} --grid {params.grid:q} --params {params.settings:q}"
        " --study {config[study]} --rev {params.rev} --output {RESULTS}/tables > {log} 2>&1"


rule plots:
    input:
        collect("<results>/tables/{name}.parquet", name=TABLES),
    output:
        study_figures(),
    log:
        "<logs>/plots.log",
    conda:
        "../../envs/tables.yaml"
    params:
        rev=1,
    localrule: True
    shell:
        "python -m vit_plasticity.plots --tables {RESULTS}/tables --output {RESULTS}/figures > {log} 2>&1"
