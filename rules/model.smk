rule base:
    output:
        weights="results/models/{model}/base.safetensors",
        card="results/models/{model}/base.json",
    log:
        "results/logs/base/{model}.log",
    benchmark:
        "results/benchmarks/base/{model}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(3000, 6),
        runtime=60,
    params:
        settings=model_settings,
        listing=lambda wildcards: E.weights_fingerprint(wildcards.model),
        code=code("base.py"),
    message:
        "take the image tower of {wildcards.model}"
    shell:
        "$PYTHON $SCRIPTS/base.py --settings {params.settings:q}"
        " --weights {output.weights} --card {output.card} 2>&1 | tee {log}"


rule head:
    input:
        card="results/models/{model}/base.json",
        manifest=lambda w: f"results/data/{pixels(w)}/{w.task}/dataset.json",
    output:
        head="results/heads/{model}/{task}.safetensors",
        manifest="results/heads/{model}/{task}.json",
    log:
        "results/logs/head/{model}/{task}.log",
    benchmark:
        "results/benchmarks/head/{model}/{task}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(3000, 4),
        runtime=30,
    params:
        settings=model_settings,
        code=code("head.py"),
    message:
        "zero-shot head of {wildcards.model} for {wildcards.task}"
    shell:
        "$PYTHON $SCRIPTS/head.py --settings {params.settings:q} --threads {threads}"
        " --card {input.card} --dataset {input.manifest}"
        " --head {output.head} --manifest {output.manifest} 2>&1 | tee {log}"


# Not part of the default targets: the shipped weights were made by it.
rule pretrain:
    input:
        config=workflow.source_path("../resources/models/taskgrid-vit-4.json"),
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
        settings=lambda wildcards: canonical_json(
            {
                "seed": int(wildcards.pretrain_seed),
                "images": 150_000,
                "batch": 128,
                "warmup": 200,
                "steps": 6000,
            }
        ),
        code=code("pretrain.py"),
    message:
        "pre-train the built-in model, seed {wildcards.pretrain_seed}"
    shell:
        "$PYTHON $SCRIPTS/pretrain.py --settings {params.settings:q} --threads {threads}"
        " --workers {threads} --architecture-config {input.config}"
        " --output {output.weights} --datasheet {output.datasheet} 2>&1 | tee {log}"
