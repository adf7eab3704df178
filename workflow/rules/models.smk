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
    conda:
        "../../envs/torch.yaml"
    # Not {threads} below, which Snakemake lowers with --cores 1: sums of other parts end in other bits.
    threads: 2
    params:
        settings=pretrain_settings,
        rev=1,
    shell:
        "python -m vit_plasticity.warm pretrain --dataset {input} --params {params.settings:q}"
        " --threads 2 --output {output} > {log} 2>&1"
