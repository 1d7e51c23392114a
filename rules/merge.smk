rule merge:
    input:
        followed=lambda w: settings.merge.files(E, **w).followed,
        settled=ancient(lambda w: settings.merge.files(E, **w).settled),
    output:
        plan="results/merge/{model}/{mode}/{seed}/{method}/{block}.json",
    log:
        "results/logs/merge/{model}/{mode}/{seed}/{method}/{block}.log",
    benchmark:
        "results/benchmarks/merge/{model}/{mode}/{seed}/{method}/{block}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        script=script("merge.py"),
        settings=lambda w: settings.merge.plan(E, **w),
        listing=lambda w, input: settings.merge.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("merge.py", *settings.merge.modules(E, w.method)),
    message:
        "plan block {wildcards.block} of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --listing {params.listing:q} --plan {output.plan:q} 2>&1 | tee {log:q}"
