"""What a job opens: manifests, files, devices, engines."""
