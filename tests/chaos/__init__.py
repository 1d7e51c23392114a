"""Chaos: the workflow is hit where it stands, and must end as if nothing had been (docs/reliability.md)."""
