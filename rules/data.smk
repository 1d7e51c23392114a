rule dataset:
    output:
        images="results/data/{pixels}/{task}/images.arrow",
        originals="results/data/{pixels}/{task}/train.arrow",
        manifest="results/data/{pixels}/{task}/dataset.json",
    log:
        "results/logs/dataset/{pixels}/{task}.log",
    benchmark:
        "results/benchmarks/dataset/{pixels}/{task}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=dataset_settings,
        listing=dataset_listing,
        code=dataset_code,
    message:
        "decode the images of {wildcards.task} once, at {wildcards.pixels}"
    shell:
        "$PYTHON $SCRIPTS/dataset.py --settings {params.settings:q} --threads {threads}"
        " --images {output.images} --originals {output.originals} --manifest {output.manifest} 2>&1 | tee {log}"


rule split:
    input:
        manifest="results/data/{pixels}/{task}/dataset.json",
        images=ancient("results/data/{pixels}/{task}/images.arrow"),
    output:
        split="results/splits/{pixels}/{task}.json",
    log:
        "results/logs/split/{pixels}/{task}.log",
    benchmark:
        "results/benchmarks/split/{pixels}/{task}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=lambda wildcards: canonical_json(
            {
                "task": wildcards.task,
                "allow_overlap": E.task(wildcards.task).allow_overlap,
                **E.config.split.model_dump(),
            }
        ),
        code=code("split.py"),
    message:
        "split {wildcards.task} into train, val and test"
    shell:
        "$PYTHON $SCRIPTS/split.py --settings {params.settings:q}"
        " --manifest {input.manifest} --images {input.images} --split {output.split} 2>&1 | tee {log}"
