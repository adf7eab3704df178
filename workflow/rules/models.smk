rule fetch_model:
    output:
        directory("resources/models/{model}"),
    log:
        "logs/fetch/models/{model}.log",
    wildcard_constraints:
        model=one_of(FETCHED),
    localrule: True
    conda:
        "../../envs/torch.yaml"
    resources:
        downloads=DOWNLOADS,
    params:
        entry=lambda wildcards: catalog_entry("models", wildcards.model),
        rev=1,
    shell:
        "python -m vit_plasticity.fetch model {wildcards.model} --catalog {params.entry:q}"
        " --output {output} {resources.downloads} > {log} 2>&1"


rule pretrain:
    input:
        pretraining_dataset,
    output:
        directory("resources/models/{model}"),
    log:
        "logs/pretrain/{model}.log",
    wildcard_constraints:
        model=one_of(PRETRAINED),
    localrule: SMALL
    conda:
        "../../envs/torch.yaml"
    params:
        settings=pretrain_settings,
        rev=1,
    shell:
        "python -m vit_plasticity.warm pretrain --dataset {input} --params {params.settings:q}"
        " --threads {threads} --output {output} > {log} 2>&1"
