rule taskvector:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        manifest="results/experts/{model}/{mode}/{seed}/{task}/expert.json",
        expert=ancient(
            "results/experts/{model}/{mode}/{seed}/{task}/expert.safetensors"
        ),
        verified=verified,
    output:
        vector="results/vectors/{model}/{mode}/{seed}/{task}.safetensors",
        manifest="results/vectors/{model}/{mode}/{seed}/{task}.json",
        norms="results/vectors/{model}/{mode}/{seed}/{task}.norms.csv",
    log:
        "results/logs/taskvector/{model}/{mode}/{seed}/{task}.log",
    benchmark:
        "results/benchmarks/taskvector/{model}/{mode}/{seed}/{task}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, 5),
        runtime=10,
    params:
        code=code("taskvector.py"),
    message:
        "task vector of {wildcards.task} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/taskvector.py --card {input.card} --base {input.base} --expert {input.expert}"
        " --vector {output.vector} --manifest {output.manifest} --norms {output.norms} 2>&1 | tee {log}"


rule cosine:
    input:
        manifests=task_files("results/vectors/{model}/{mode}/{seed}/{task}.json"),
        vectors=ancient(
            task_files("results/vectors/{model}/{mode}/{seed}/{task}.safetensors")
        ),
    output:
        table="results/vectors/{model}/{mode}/{seed}/cosine.csv",
    log:
        "results/logs/cosine/{model}/{mode}/{seed}.log",
    benchmark:
        "results/benchmarks/cosine/{model}/{mode}/{seed}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, 2, vectors=True),
        runtime=10,
    params:
        code=code("cosine.py"),
    message:
        "cosines between the task vectors ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/cosine.py --vectors {input.vectors} --table {output.table} 2>&1 | tee {log}"
