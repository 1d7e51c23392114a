# Any grid point as a CLIP that open_clip loads; no target of the workflow asks for it.
# snakemake results/export/MODEL/MODE/SEED/METHOD/a+b/0.30.safetensors, or a+b/1.00@a.safetensors of a method
# with a model for each task.
rule export:
    input:
        followed=lambda w: settings.export.files(E, **w).followed,
        settled=ancient(lambda w: settings.export.files(E, **w).settled),
    output:
        weights="results/export/{model}/{mode}/{seed}/{method}/{subset}/{scale}.safetensors",
    log:
        "results/logs/export/{model}/{mode}/{seed}/{method}/{subset}/{scale}.log",
    benchmark:
        "results/benchmarks/export/{model}/{mode}/{seed}/{method}/{subset}/{scale}.tsv"
    wildcard_constraints:
        # Any text: the settings says what is wrong with a name that does not exist.
        model="[^/]+",
        mode="[^/]+",
        seed="[^/]+",
        method="[^/]+",
        subset="[^/]+",
        scale="[^/]+",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt
        * cost.memory(E, w.model, 3000 + E.config.export.max_mb, 4),
        runtime=30,
    params:
        script=script("export.py"),
        settings=lambda w: settings.export.point(E, **w),
        listing=lambda w, input: settings.export.files(E, **w).listing(
            input.followed, input.settled
        ),
        fingerprint=lambda w: E.weights_fingerprint(w.model),
        code=lambda w: code("export.py", *settings.merge.modules(E, w.method)),
    message:
        "write {wildcards.subset} at {wildcards.scale} as a CLIP"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --listing {params.listing:q}"
        " --weights {output.weights:q} 2>&1 | tee {log:q}"
