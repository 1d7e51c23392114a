"""The sections of the configuration, a file each; what a key means stands below it.

The texts below the keys are the reference (`docs/configuration.md`) and what editors show
(`resources/schema/config.json`); digests of code leave them out.
"""
