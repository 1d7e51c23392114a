"""Stand-ins of published data sets, as the hub's cache and the owners' files hold them."""

from tests.unit.example_servers import etag


def hub_cache(root, repository, files, commit="a" * 40, kind="dataset", links=True):
    """A cache of the hub's clients that holds a repository; ``files`` is content by name."""
    folder = root / f"{kind}s--{repository.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    for name, content in files.items():
        pointer = folder / "snapshots" / commit / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if not links:
            pointer.write_bytes(content)
            continue
        blob = folder / "blobs" / etag(name, content)
        blob.write_bytes(content)
        up = "../" * (len(name.split("/")) + 1)
        pointer.symlink_to(f"{up}blobs/{blob.name}")
    return root
