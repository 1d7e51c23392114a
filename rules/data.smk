# Published data; where compute nodes have no network, this runs on the node that calls Snakemake.
rule download:
    output:
        manifest="results/downloads/{task}.json",
    log:
        "results/logs/download/{task}.log",
    benchmark:
        "results/benchmarks/download/{task}.tsv"
    wildcard_constraints:
        task=one_of(E.published()),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=720,
    params:
        settings=download_settings,
    message:
        "see that the images of {wildcards.task} are here and whole"
    shell:
        "$PYTHON $SCRIPTS/download.py --settings {params.settings:q}"
        " --manifest {output.manifest} 2>&1 | tee {log}"


rule dataset:
    input:
        download=downloaded,
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
    # The bytes written do not depend on the number of threads.
    threads: decoders
    resources:
        mem_mb=4000,
        runtime=240,
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
