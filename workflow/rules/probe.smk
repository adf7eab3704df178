rule probe:
    input:
        model="resources/models/{model}",
        dataset="resources/datasets/{dataset}",
    output:
        PATHS["probe"],
    log:
        "<logs>/probe/{model}/{dataset}.log",
    localrule: SMALL
    conda:
        "../../envs/torch.yaml"
    params:
        study=config["study"],
        settings=settings("probe"),
        rev=3,
    shell:
        "python -m vit_plasticity.warm probe --model {input.model} --dataset {input.dataset}"
        " --params {params.settings:q} --study {params.study} --rev {params.rev}"
        " --threads {threads} --output {output} > {log} 2>&1"
