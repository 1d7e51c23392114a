# Any grid point as a CLIP that open_clip loads; no target of the workflow asks for it.
# snakemake results/export/MODEL/MODE/SEED/METHOD/a+b/0.30.safetensors
rule export:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        manifests=task_files(
            "results/vectors/{model}/{trained}/{seed}/{task}.json", point_tasks
        ),
        vectors=ancient(
            task_files(
                "results/vectors/{model}/{trained}/{seed}/{task}.safetensors",
                point_tasks,
            )
        ),
    output:
        weights="results/export/{model}/{mode}/{seed}/{method}/{subset}/{scale}.safetensors",
    log:
        "results/logs/export/{model}/{mode}/{seed}/{method}/{subset}/{scale}.log",
    benchmark:
        "results/benchmarks/export/{model}/{mode}/{seed}/{method}/{subset}/{scale}.tsv"
    wildcard_constraints:
        # Any text: `point_tasks` says what is wrong with a name that does not exist.
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
        mem_mb=memory(3000 + E.config.export.max_mb, 4),
        runtime=30,
    params:
        settings=export_settings,
        listing=lambda wildcards: E.weights_fingerprint(wildcards.model),
        code=lambda w: code(
            "export.py", plugins.module_of("merger", E.method(w.method).name)
        ),
    message:
        "write {wildcards.subset} at lambda {wildcards.scale} as a CLIP"
    shell:
        "$PYTHON $SCRIPTS/export.py --settings {params.settings:q} --threads {threads}"
        " --card {input.card} --base {input.base} --vectors {input.vectors}"
        " --weights {output.weights} 2>&1 | tee {log}"
