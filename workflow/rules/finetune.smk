rule finetune:
    input:
        model="resources/models/{model}",
        dataset="resources/datasets/{dataset}",
    output:
        runs=f"<results>/finetune/{CELL}/runs.parquet",
        history=f"<results>/finetune/{CELL}/history.parquet",
        trained=f"<results>/finetune/{CELL}/trained.safetensors",
    log:
        f"<logs>/finetune/{CELL}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        settings=finetune_settings,
        rev=1,
    shell:
        "python -m vit_plasticity.warm finetune --model {input.model} --dataset {input.dataset}"
        " --component {wildcards.component} --seed {wildcards.seed} --params {params.settings:q}"
        " --study {config[study]} --rev {params.rev} --threads {threads} --work {WORK} --output {output.runs} > {log} 2>&1"


rule evaluate:
    input:
        model="resources/models/{model}",
        runs=f"<results>/finetune/{CELL}/runs.parquet",
        trained=f"<results>/finetune/{CELL}/trained.safetensors",
        datasets=evaluation_datasets,
    output:
        f"<results>/robustness/{CELL}.parquet",
    log:
        f"<logs>/robustness/{CELL}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        rev=1,
    shell:
        "python -m vit_plasticity.warm evaluate --model {input.model} --runs {input.runs} --on {input.datasets}"
        " --study {config[study]} --rev {params.rev} --threads {threads} --output {output} > {log} 2>&1"
