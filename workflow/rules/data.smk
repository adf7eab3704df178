rule fetch_dataset:
    input:
        whole_dataset,
    output:
        directory("resources/datasets/{dataset}"),
    log:
        "logs/fetch/datasets/{dataset}.log",
    localrule: True
    conda:
        "../../envs/torch.yaml"
    threads: 4
    resources:
        downloads=DOWNLOADS,
    params:
        entry=lambda wildcards: catalog_entry("datasets", wildcards.dataset),
        recipe=recipe,
        rev=2,
    # What was left out, and other notes, must be seen by a user whose jobs succeed.
    shell:
        "python -m vit_plasticity.fetch dataset {wildcards.dataset} --catalog {params.entry:q}"
        " --output {output} --threads {threads} {resources.downloads} > {log} 2>&1"
        "; grep '^note: ' {log} >&2 || true"
