rule fetch_dataset:
    output:
        directory("resources/datasets/{dataset}"),
    log:
        "logs/fetch/datasets/{dataset}.log",
    conda:
        "../../envs/tables.yaml"
    params:
        entry=lambda wildcards: catalog_entry("datasets", wildcards.dataset),
        rev=1,
    localrule: True
    shell:
        "python -m vit_plasticity.fetch dataset {wildcards.dataset} --catalog {params.entry:q}"
        " --output {output} {DOWNLOADS} > {log} 2>&1"
