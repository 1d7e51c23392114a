"""Where a ready-made expert lies: a file, a folder, or a repository of the hub; and its provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from taskgrid.errors import ArtifactError
from taskgrid.experts.unpickle import load_tensors
from taskgrid.machine.meter import Meter
from taskgrid.models.card import ModelCard
from taskgrid.models.hub.declared import check_declared
from taskgrid.models.hub.repository import Reference, Surroundings, surroundings
from taskgrid.remote.cache import is_repository
from taskgrid.remote.hub import fetch
from taskgrid.store.weights import Lineage, State, load_state


@dataclass(frozen=True)
class ExpertSource:
    """What is asked for.

    Attributes:
        location: a repository (``owner/name``, with or without ``hf-hub:``), a folder, or a file.
        file: the file in the repository or folder; None takes the format's usual name.
        revision: commit, tag or branch of the repository.
        cache: the hub's cache; None is that of the hub's clients.
        offline: never use the network.
        progress: told how far a download is.
    """

    location: str
    file: str | None = None
    revision: str | None = None
    cache: str | Path | None = None
    offline: bool = False
    progress: Meter | None = None


@dataclass(frozen=True)
class ExpertFile:
    """A file of weights of an expert.

    Attributes:
        path: where it lies here.
        name: what people call it: repository and file, or the file's path.
        provenance: entries for a lineage: the file and its SHA-256, and, of the hub, the repository
            and its commit. Where a local file lies is not among them: a moved file is no other.
        around: the configuration beside it.
    """

    path: Path
    name: str
    provenance: Lineage
    around: Surroundings

    def check_declared(self, card: ModelCard, what: str) -> bool:
        """Hold the configuration beside it, if there is one, against a base; say whether there is.

        Raises:
            LineageError: if it describes another model than the base.
        """
        if self.around.declared is None:
            return False
        check_declared(
            self.around.declared,
            card.tower,
            architecture=card.architecture,
            what=f"the weights of {what}",
            source=self.around.source,
        )
        return True

    def read(self) -> tuple[State, Lineage]:
        """Return the tensors, and this project's lineage where the file carries one.

        Raises:
            ArtifactError: if the file is damaged, or a pickle that asks for more than tensors.
        """
        if self.path.suffix != ".safetensors":
            return load_tensors(self.path), {}
        try:
            with safe_open(str(self.path), framework="pt") as stream:
                header: Mapping[str, str] = stream.metadata() or {}
                if "taskgrid" not in header:
                    names = list(stream.keys())
                    return {name: stream.get_tensor(name) for name in names}, {}
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{self.path} is damaged ({error}); fetch it again") from error
        return load_state(self.path)


def locate(request: ExpertSource, usual: Sequence[str], beside: Sequence[str] = ()) -> ExpertFile:
    """Return the file that a request means.

    Args:
        request: what is asked for.
        usual: names that the format's files have, the most usual first.
        beside: configurations that a repository of this format has beside the weights.

    Raises:
        ConfigError: if the location cannot be one.
        ArtifactError: if there is no such file here, or it is damaged.
        RemoteError: if the repository does not exist or cannot be reached.
    """
    if is_repository(request.location):
        return _fetched(request, request.file or usual[0], beside)
    path = Path(request.location).expanduser()
    if path.exists():
        return _local(path, request.file, usual)
    raise ArtifactError(
        f"{request.location} does not exist; correct `source` of the experts, or put the checkpoint "
        "there"
    )


def _local(path: Path, file: str | None, usual: Sequence[str]) -> ExpertFile:
    if path.is_dir():
        names = [file] if file is not None else list(usual)
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise ArtifactError(
                f"{path} has no {' and no '.join(names)}; name the right one as `file` of the experts"
            )
        path = found[0]
    with path.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    provenance = {"file": path.name, "file_sha256": content}
    return ExpertFile(path, str(path), provenance, surroundings(path.parent))


def _fetched(request: ExpertSource, file: str, beside: Sequence[str]) -> ExpertFile:
    reference = Reference.parse(request.location)
    files = fetch(
        reference.repository,
        kind="model",
        revision=request.revision or reference.revision,
        patterns=[*beside, file],
        cache=request.cache,
        offline=request.offline,
        progress=request.progress,
    )
    weights = next(found for found in files.files if found.name == file)
    return ExpertFile(
        path=weights.path,
        name=f"{files.repository}/{file}",
        provenance={
            "repository": files.repository,
            "commit": files.commit,
            "file": file,
            "file_sha256": weights.sha256,
        },
        # What happens to lie in the cache beside it was not asked for, and not checked.
        around=surroundings(weights.path.parent) if beside else Surroundings(),
    )
