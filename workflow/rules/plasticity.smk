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


rule bounds:
    input:
        model="resources/models/{model}",
        source=f"resources/datasets/{config['plasticity']['source']}",
    output:
        PATHS["bounds"],
    log:
        "<logs>/bounds/{model}/{component}.log",
    localrule: SMALL
    conda:
        "../../envs/torch.yaml"
    params:
        study=config["study"],
        settings=settings("bounds"),
        rev=1,
    shell:
        "python -m vit_plasticity.warm bounds --model {input.model} --source {input.source}"
        " --component {wildcards.component} --params {params.settings:q} --study {params.study} --rev {params.rev}"
        " --threads {threads} --output {output} > {log} 2>&1"
