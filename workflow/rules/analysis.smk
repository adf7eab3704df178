rule correlate:
    input:
        [f"<results>/{path}" for name in grid.TABLES_READ for path in FILES[name]],
    output:
        study_files(grid.tables()),
    log:
        "<logs>/correlate.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    resources:
        command=command(),
    params:
        study=config["study"],
        settings=settings("analysis"),
        grid=studies.json_text(GRID),
        results=subpath(output[0], ancestor=2),
        rev=1,
    shell:
        "python -m vit_plasticity.correlate --results {params.results} --grid {params.grid:q} --params {params.settings:q}"
        " --study {params.study} --rev {params.rev} --command {resources.command:q} --output {params.results}/tables"
        " > {log} 2>&1"


rule plots:
    input:
        collect("<results>/tables/{name}.parquet", name=grid.TABLES),
    output:
        study_files(grid.figures()),
    log:
        "<logs>/plots.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        results=subpath(output[0], ancestor=2),
        rev=1,
    shell:
        "python -m vit_plasticity.plots --tables {params.results}/tables --output {params.results}/figures > {log} 2>&1"
