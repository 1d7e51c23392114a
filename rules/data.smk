# Published data; where compute nodes have no network, this runs on the node that calls Snakemake.
rule download:
    output:
        manifest="results/downloads/{task}.json",
    log:
        "results/logs/download/{task}.log",
    benchmark:
        "results/benchmarks/download/{task}.tsv"
    wildcard_constraints:
        task=one_of(settings.data.published(E)),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=720,
    params:
        script=script("download.py"),
        settings=lambda w: settings.data.download(E, **w),
    message:
        "see that the images of {wildcards.task} are here and whole"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --manifest {output.manifest:q} 2>&1 | tee {log:q}"


rule dataset:
    input:
        download=lambda w: settings.data.downloaded(E, w.task),
    output:
        images="results/data/{pixels}/{task}/images.arrow",
        originals="results/data/{pixels}/{task}/train.arrow",
        manifest="results/data/{pixels}/{task}/dataset.json",
    log:
        "results/logs/dataset/{pixels}/{task}.log",
    benchmark:
        "results/benchmarks/dataset/{pixels}/{task}.tsv"
    localrule: SMALL
    conda:
        "../envs/torch.yaml"
    # The bytes written do not depend on the number of threads.
    threads: lambda w: cost.decoders(E, w.task)
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        script=script("dataset.py"),
        settings=lambda w: settings.data.dataset(E, **w),
        fingerprints=lambda w: settings.data.fingerprints(E, w.task),
        code=lambda w: code("dataset.py", *settings.data.modules(E, w.task)),
    message:
        "decode the images of {wildcards.task} once, at {wildcards.pixels}"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --images {output.images:q} --originals {output.originals:q} --manifest {output.manifest:q} 2>&1 | tee {log:q}"


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
        script=script("split.py"),
        settings=lambda w: settings.data.split(E, w.task),
        code=code("split.py"),
    message:
        "split {wildcards.task} into train, val and test"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --manifest {input.manifest:q} --images {input.images:q} --split {output.split:q} 2>&1 | tee {log:q}"
