rule fetch_model:
    output:
        directory("resources/models/{model}"),
    wildcard_constraints:
        model=one_of(FETCHED),
    log:
        "logs/fetch/models/{model}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        entry=lambda wildcards: catalog_entry("models", wildcards.model),
        rev=1,
    localrule: True
    shell:
        "python -m vit_plasticity.fetch model {wildcards.model} --catalog {params.entry:q}"
        " --output {output} {DOWNLOADS} > {log} 2>&1"


rule pretrain:
    input:
        pretraining_dataset,
    output:
        directory("resources/models/{model}"),
    wildcard_constraints:
        model=one_of(PRETRAINED),
    log:
        "logs/pretrain/{model}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        settings=pretrain_settings,
        rev=1,
    threads: 2
    shell:
        "python -m vit_plasticity.warm pretrain --dataset {input} --params {params.settings:q}"
        " --threads {threads} --output {output} > {log} 2>&1"
