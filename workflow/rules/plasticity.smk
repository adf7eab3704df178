rule plasticity:
    input:
        model="resources/models/{model}",
        source=f"resources/datasets/{config['plasticity']['source']}",
        targets=collect("resources/datasets/{dataset}", dataset=config["datasets"]),
    output:
        collect(
            PATHS["plasticity"],
            dataset=config["datasets"],
            allow_missing=True,
        ),
    log:
        "<logs>/plasticity/{model}/{component}.log",
    localrule: SMALL
    conda:
        "../../envs/torch.yaml"
    params:
        study=config["study"],
        settings=plasticity_settings(),
        rev=2,
    shell:
        "python -m vit_plasticity.warm plasticity --model {input.model} --source {input.source} --targets {input.targets}"
        " --component {wildcards.component} --params {params.settings:q} --study {params.study} --rev {params.rev}"
        " --threads {threads} --output {output} > {log} 2>&1"


if GRID["predictors"]:

    rule measure:
        input:
            model="resources/models/{model}",
            source=f"resources/datasets/{config['plasticity']['source']}",
            dataset="resources/datasets/{dataset}",
        output:
            collect(
                PATHS["measure"],
                predictor=GRID["predictors"],
                allow_missing=True,
            ),
        log:
            "<logs>/measure/{model}/{dataset}.log",
        localrule: SMALL
        conda:
            "../../envs/torch.yaml"
        params:
            study=config["study"],
            predictors=GRID["predictors"],
            components=grid.measured(GRID),
            settings=settings("measure"),
            finetune=short_run_settings(),
            rev=1,
        shell:
            "python -m vit_plasticity.warm measure --model {input.model} --source {input.source} --dataset {input.dataset}"
            " --predictor {params.predictors} --components {params.components} --params {params.settings:q}"
            " --finetune {params.finetune:q} --study {params.study} --rev {params.rev}"
            " --threads {threads} --output {output} > {log} 2>&1"
