# Figures that are made when they are asked for by name: snakemake --cores all probes_by_block loss_landscape


rule taps:
    input:
        model="resources/models/{model}",
        dataset="resources/datasets/{dataset}",
        runs=cells_of("finetune"),
        trained=cells_of("trained"),
    output:
        PATHS["taps"],
    log:
        "<logs>/taps/{model}/{dataset}.log",
    localrule: SMALL
    conda:
        "../../envs/torch.yaml"
    params:
        study=config["study"],
        settings=settings("probe"),
        rev=1,
    shell:
        "python -m vit_plasticity.warm taps --model {input.model} --dataset {input.dataset} --runs {input.runs}"
        " --params {params.settings:q} --study {params.study} --rev {params.rev}"
        " --threads {threads} --output {output} > {log} 2>&1"


rule landscape:
    input:
        model="resources/models/{model}",
        dataset="resources/datasets/{dataset}",
        runs=PATHS["finetune"],
        trained=PATHS["trained"],
    output:
        PATHS["landscape"],
    log:
        f"<logs>/landscape/{grid.CELL}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        study=config["study"],
        settings=settings("landscape"),
        rev=1,
    shell:
        "python -m vit_plasticity.warm landscape --model {input.model} --dataset {input.dataset} --runs {input.runs}"
        " --params {params.settings:q} --study {params.study} --rev {params.rev}"
        " --threads {threads} --output {output} > {log} 2>&1"


rule probes_by_block:
    input:
        drawn_from("probes_by_block"),
    output:
        study_files(grid.figures(["probes_by_block"])),
    log:
        "<logs>/probes_by_block.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        folder=subpath(output[0], parent=True),
        rev=1,
    shell:
        "python -m vit_plasticity.plots --optional probes_by_block --files {input} --output {params.folder} > {log} 2>&1"


rule loss_landscape:
    input:
        drawn_from("loss_landscape"),
    output:
        study_files(grid.figures(["loss_landscape"])),
    log:
        "<logs>/loss_landscape.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        folder=subpath(output[0], parent=True),
        rev=1,
    shell:
        "python -m vit_plasticity.plots --optional loss_landscape --files {input} --output {params.folder} > {log} 2>&1"
