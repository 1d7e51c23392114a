"""What is installed comes from the lock file, whichever build of torch it is."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import install

ROOT = Path(__file__).resolve().parents[3]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_full_build_is_the_lock_file() -> None:
    assert install.hashed(LOCK, "full") == LOCK
    assert install.from_index(LOCK, "full") == install.from_index(LOCK, "slim") == []


@pytest.mark.parametrize("build", ["slim", "cpu"])
def test_other_builds_leave_out_what_gpus_use_and_keep_the_rest_with_its_hashes(build: str) -> None:
    entries = install.pins(install.hashed(LOCK, build))
    kept, every = {name for name, _ in entries}, {name for name, _ in install.pins(LOCK)}
    assert entries == [entry for entry in install.pins(LOCK) if entry[0] in kept]
    left_out = every - kept
    own = {"torch", "torchvision"} if build == "cpu" else set()
    assert left_out - own == {
        name for name in left_out if re.match(r"(nvidia|cuda)-|triton$", name)
    }
    assert own <= left_out and "triton" in left_out
    # What torch's libraries are linked with stays where torch is the one of the lock file.
    assert ("nvidia-cublas" in kept) is (build == "slim")


def test_the_cpu_build_has_the_versions_of_the_lock_file() -> None:
    pinned = dict(re.findall(r"^(torch|torchvision)==(\S+)", LOCK, re.MULTILINE))
    asked = install.from_index(LOCK, "cpu")
    assert asked == [f"{name}=={version}+cpu" for name, version in pinned.items()]


def wheel(folder: Path, name: str, version: str, *needs: str) -> str:
    """Write a wheel without a module; return its digest."""
    about = f"{name}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    lines += [f"Requires-Dist: {need}\n" for need in needs]
    files = {
        f"{about}/METADATA": "".join(lines),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {
        file: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        for file, text in files.items()
    }
    record = "".join(f"{file},sha256={digest},\n" for file, digest in digests.items())
    place = folder / name
    place.mkdir(parents=True)
    path = place / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(file, text)
    (place / "index.html").write_text(f'<a href="{path.name}">{path.name}</a>')
    return hashlib.sha256(path.read_bytes()).hexdigest()


def call(python: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    places = {"lock": "lock.txt", "kept": "build", "log": "log"}
    files = [word for name, file in places.items() for word in (f"--{name}", str(folder / file))]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    environment |= {"PIP_INDEX_URL": (folder / "pypi").as_uri()}
    index = (folder / "pytorch").as_uri()
    return subprocess.run(
        [python, "-m", "tools.install", "--index", index, *files, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_pip_installs_a_build_checks_hashes_and_is_asked_for_the_same_one_again(
    tmp_path: Path,
) -> None:
    pypi, pytorch = tmp_path / "pypi", tmp_path / "pytorch"
    digests = {
        "torch": wheel(pypi, "torch", "2.15.0", "triton==3.9.0", "plain"),
        "torchvision": wheel(pypi, "torchvision", "0.29.2", "torch==2.15.0"),
        "triton": wheel(pypi, "triton", "3.9.0"),
        "plain": wheel(pypi, "plain", "1.0"),
    }
    wheel(pytorch, "torch", "2.15.0+cpu", "plain")
    wheel(pytorch, "torchvision", "0.29.2+cpu", "torch==2.15.0")
    versions = {"torch": "2.15.0", "torchvision": "0.29.2", "triton": "3.9.0", "plain": "1.0"}
    lock = "".join(
        f"{name}=={versions[name]} \\\n    --hash=sha256:{digest}\n"
        for name, digest in digests.items()
    )
    other = f'nowhere==1 ; sys_platform == "os2" \\\n    --hash=sha256:{"0" * 64}\n'
    (tmp_path / "lock.txt").write_text(lock + other)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"

    done = call(python, tmp_path, "--build", "cpu")
    assert done.returncode == 0, done.stderr
    assert "installed 3 packages in 0:" in done.stderr
    listed = subprocess.run(
        [python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert listed == ["plain==1.0", "torch==2.15.0+cpu", "torchvision==0.29.2+cpu"]
    assert "Successfully installed plain-1.0" in (tmp_path / "log").read_text()

    # A lock file that is not what the index has: unasked, for the build that is there.
    (tmp_path / "lock.txt").write_text(lock.replace(digests["plain"], "0" * 64))
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", "plain"], check=True)
    done = call(python, tmp_path)
    assert done.returncode == 1 and "(cpu)" in done.stderr
    assert "DO NOT MATCH THE HASHES" in done.stderr and "all that pip said is in" in done.stderr


def test_progress_counts_what_pip_says(tmp_path: Path) -> None:
    progress = install.Progress(3, tmp_path)
    progress.read(
        "Ignoring nowhere: markers 'sys_platform == \"os2\"' don't match your environment\n"
    )
    progress.read("Collecting torch==2.15.0 (from -r requirements.txt (line 2))\n")
    progress.read("  Downloading torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl (539.1 MB)\n")
    assert str(progress) == "fetching 1 of 2: torch==2.15.0 (539.1 MB)"
    progress.read("Installing collected packages: plain, torch\n")
    (tmp_path / "plain-1.0.dist-info").mkdir()
    assert str(progress) == "unpacking 1 of 2"
