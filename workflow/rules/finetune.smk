rule finetune:
    input:
        model="resources/models/{model}",
        dataset="resources/datasets/{dataset}",
        predicted=predicted(),
    output:
        runs=PATHS["finetune"],
        history=PATHS["history"],
        trained=PATHS["trained"],
    log:
        f"<logs>/finetune/{grid.CELL}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        study=config["study"],
        settings=finetune_settings(),
        candidates=candidates(),
        rev=1,
    # Only an adaptive component has candidates, and what is predicted of them.
    # exec: a shell in between would die of SIGTERM at once, and the cell lose its time to write a checkpoint.
    shell:
        "exec python -m vit_plasticity.warm finetune --model {input.model} --dataset {input.dataset}"
        " --component {wildcards.component} --candidates {params.candidates} --predicted {input.predicted}"
        " --seed {wildcards.seed} --params {params.settings:q}"
        " --study {params.study} --rev {params.rev} --threads {threads} --output {output.runs} > {log} 2>&1"


rule evaluate:
    input:
        model="resources/models/{model}",
        runs=PATHS["finetune"],
        trained=PATHS["trained"],
        datasets=evaluation_datasets,
    output:
        PATHS["evaluate"],
    log:
        f"<logs>/evaluate/{grid.CELL}.log",
    localrule: SMALL
    conda:
        "../../envs/torch.yaml"
    params:
        study=config["study"],
        rev=1,
    shell:
        "python -m vit_plasticity.warm evaluate --model {input.model} --runs {input.runs} --on {input.datasets}"
        " --study {params.study} --rev {params.rev} --threads {threads} --output {output} > {log} 2>&1"
