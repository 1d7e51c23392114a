rule base:
    output:
        weights="results/models/{model}/base.safetensors",
        card="results/models/{model}/base.json",
    log:
        "results/logs/base/{model}.log",
    benchmark:
        "results/benchmarks/base/{model}.tsv"
    localrule: SMALL
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 3000, 6),
        runtime=60,
    params:
        script=script("base.py"),
        settings=lambda w: settings.model.base(E, w.model),
        fingerprint=lambda w: E.weights_fingerprint(w.model),
        code=code("base.py"),
    message:
        "take the image tower of {wildcards.model}"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --weights {output.weights:q} --card {output.card:q} 2>&1 | tee {log:q}"


rule head:
    input:
        card="results/models/{model}/base.json",
        manifest=lambda w: f"results/data/{E.pixels(w.model)}/{w.task}/dataset.json",
    output:
        head="results/heads/{model}/{task}.safetensors",
        manifest="results/heads/{model}/{task}.json",
    log:
        "results/logs/head/{model}/{task}.log",
    benchmark:
        "results/benchmarks/head/{model}/{task}.tsv"
    localrule: SMALL
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 3000, 4),
        runtime=30,
    params:
        script=script("head.py"),
        settings=lambda w: settings.model.base(E, w.model),
        code=code("head.py"),
    message:
        "zero-shot head of {wildcards.model} for {wildcards.task}"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --card {input.card:q} --dataset {input.manifest:q}"
        " --head {output.head:q} --manifest {output.manifest:q} 2>&1 | tee {log:q}"


# Not part of the default targets: the shipped weights were made by it.
rule pretrain:
    input:
        # By a function: Snakemake would read braces in the project's own path as wildcards.
        config=lambda w: str(resource_path("models/taskgrid-vit-4.json")),
    output:
        weights="results/pretrain/taskgrid-vit-4-s{pretrain_seed}.safetensors",
        datasheet="results/pretrain/taskgrid-vit-4-s{pretrain_seed}.json",
    log:
        "results/logs/pretrain/s{pretrain_seed}.log",
    benchmark:
        "results/benchmarks/pretrain/s{pretrain_seed}.tsv"
    conda:
        "../envs/torch.yaml"
    # The sums of a matrix product depend on the number of threads, and so do the weights.
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        script=script("pretrain.py"),
        settings=lambda w: settings.model.pretrain(w.pretrain_seed),
        code=code("pretrain.py"),
    message:
        "pre-train the built-in model, seed {wildcards.pretrain_seed}"
    shell:
        "{params.script} --settings {params.settings:q}"
        "  --architecture-config {input.config:q}"
        " --output {output.weights:q} --datasheet {output.datasheet:q} 2>&1 | tee {log:q}"
