rule plasticity:
    input:
        model="resources/models/{model}",
        source=f"resources/datasets/{config['plasticity']['source']}",
        target="resources/datasets/{dataset}",
    output:
        "<results>/plasticity/{model}/{dataset}/{component}.parquet",
    log:
        "<logs>/plasticity/{model}/{dataset}/{component}.log",
    localrule: SMALL
    conda:
        "../../envs/torch.yaml"
    params:
        study=config["study"],
        settings=plasticity_settings(),
        rev=1,
    shell:
        "python -m vit_plasticity.warm plasticity --model {input.model} --source {input.source} --target {input.target}"
        " --component {wildcards.component} --params {params.settings:q} --study {params.study} --rev {params.rev}"
        " --threads {threads} --output {output} > {log} 2>&1"


rule bounds:
    input:
        model="resources/models/{model}",
        source=f"resources/datasets/{config['plasticity']['source']}",
    output:
        "<results>/bounds/{model}/{component}.parquet",
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
