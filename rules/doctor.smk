# What is missing, before the first GPU hour: snakemake doctor --configfile presets/NAME.yaml
rule doctor:
    log:
        "results/logs/doctor.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        script=script("doctor.py"),
        settings=lambda w: settings.doctor.needs(E),
    message:
        "look for data, weights, experts, GPUs and disk"
    shell:
        # What is missing is said, and is no failure of the workflow.
        "set +o pipefail; {params.script} --settings {params.settings:q}"
        " --results results 2>&1 | tee {log:q}"
