"""A SLURM cluster of the project's own: two nodes with two GPUs each, on this machine, for one command.

Debian's packages are unpacked into a folder, not installed: no other program of the machine meets
SLURM's clients, nothing is configured, and there is nothing to purge. The GPUs are character devices;
SLURM counts them and gives them out, and jobs, which could not compute on them, are told of none.

    python -m tests.slurm.cluster snakemake --profile profiles/slurm
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "slurm-wlm-mysql-plugin",
    "munge",
    "libmunge2",
    "mariadb-server-core",
)
UNPACKED = Path(__file__).parents[2] / ".slurm"

SLURM = """\
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog
TaskEpilog={folder}/epilog
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={ports[1]}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations,limits
AccountingStorageTRES=gres/gpu
SchedulerParameters=bf_interval=5
GresTypes=gpu
ReturnToService=2
MinJobAge=300
KillWait=5
NodeName=n1 NodeHostname={host} Port={ports[2]} CPUs=8 RealMemory=64000 Gres=gpu:2
NodeName=n2 NodeHostname={host} Port={ports[3]} CPUs=8 RealMemory=64000 Gres=gpu:2
PartitionName=short Nodes=n1,n2 Default=YES MaxTime=24:00:00
"""

ACCOUNTING = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PluginDir={plugins}
DbdHost={host}
DbdPort={ports[1]}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
PidFile={folder}/slurmdbd.pid
"""

# The executor plugin calls srun without the variable that says where the cluster is.
SRUN = """\
#!/bin/sh
SLURM_CONF='{folder}/slurm.conf' exec '{root}/usr/bin/srun' "$@"
"""

# What a job is given is written down when its step begins, and that it ended when it ends.
PROLOG = """\
#!/bin/sh
echo "begin $SLURM_JOB_ID.$SLURM_STEP_ID $SLURMD_NODENAME:$CUDA_VISIBLE_DEVICES" >> '{folder}/steps'
echo 'export CUDA_VISIBLE_DEVICES=-1'
"""
EPILOG = """\
#!/bin/sh
echo "end $SLURM_JOB_ID.$SLURM_STEP_ID" >> '{folder}/steps'
"""


class NoClusterError(Exception):
    """Why there can be no cluster here."""


def unpack(folder: Path = UNPACKED) -> Path:
    """Download Debian's packages of SLURM and unpack them into a folder, once; return their root.

    Raises:
        NoClusterError: where that is not possible.
    """
    if os.geteuid() != 0:
        raise NoClusterError("it takes root")
    if not all(Path(f"/dev/tty{number}").is_char_device() for number in range(4)):
        raise NoClusterError("there are no devices to pass for GPUs (/dev/tty0 to /dev/tty3)")
    root = folder / "root"
    if root.exists():
        return root
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NoClusterError("there is no apt-get: this is no Debian")
    debs = folder / "debs"
    (debs / "partial").mkdir(parents=True, exist_ok=True)
    options = ("-y", "--reinstall", "--download-only", "--no-install-recommends")
    place = ("-o", f"Dir::Cache::archives={debs}/", "-o", "Debug::NoLocking=1")
    subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
    done = subprocess.run(
        ["apt-get", "install", *options, *place, *PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise NoClusterError(f"SLURM's packages cannot be had: {' '.join(reason)}")
    half = folder / "half"
    for deb in debs.glob("*.deb"):
        subprocess.run(["dpkg", "-x", deb, half], check=True)
    # Debian's alternatives; a daemon asks its own name what it is.
    for program in (half / "usr/sbin").glob("*-wlm"):
        program.with_name(program.name.removesuffix("-wlm")).symlink_to(program.name)
    half.rename(root)
    return root


@dataclass(frozen=True)
class Cluster:
    """A cluster: its programs, the folder of its files, the environment in which it is met."""

    root: Path
    folder: Path
    environment: dict[str, str]

    def call(self, *command: str, given: str = "") -> str:
        """Run a command with something to read, and return what it printed."""
        done = subprocess.run(
            command,
            input=given,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NoClusterError(f"{Path(command[0]).name} failed: {done.stdout.strip()}")
        return done.stdout

    def fails(self, *command: str) -> str:
        """Return why a command fails."""
        try:
            self.call(*command)
        except NoClusterError as error:
            return str(error)
        raise AssertionError(f"{command} did not fail")

    def steps(self) -> list[list[str]]:
        """Return what began and ended so far: ``begin STEP NODE:GPUS`` and ``end STEP``."""
        path = self.folder / "steps"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def processes(self, **having: str) -> list[int]:
        """Return the processes of the cluster, jobs included, in whose environment some values are."""
        wanted = {f"{key}={value}".encode() for key, value in having.items()}
        wanted.add(f"SLURM_CONF={self.environment['SLURM_CONF']}".encode())
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted <= set((place / "environ").read_bytes().split(b"\0")):
                    found.append(int(place.name))
        return [pid for pid in found if pid != os.getpid()]


def kill(processes: Sequence[int]) -> None:
    """Kill some processes, of which some may have ended."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        NoClusterError: if it does not in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise NoClusterError(f"{what}: not after {seconds} s")
        time.sleep(0.1)


@contextmanager
def running() -> Iterator[Cluster]:
    """Bring a cluster up; take all of it down at the end, whatever runs on it.

    Raises:
        NoClusterError: where there can be none.
    """
    root = unpack()
    # A socket's path may have a hundred characters.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cluster = Cluster(root, folder, _environment(root, folder))
        _configure(cluster)
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            for daemon, ready in _daemons(cluster):
                daemons.append(begin(cluster, daemon))
                try:
                    wait_for(ready, 60, f"{Path(daemon[0]).name} answers")
                except NoClusterError as error:
                    said = (folder / "daemons.log").read_text(errors="replace").splitlines()
                    raise NoClusterError("\n".join([str(error), *said[-5:]])) from None
            yield cluster
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            deadline = time.monotonic() + 5
            for daemon in daemons:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(max(0, deadline - time.monotonic()))
            while left := cluster.processes():
                kill(left)
                time.sleep(0.1)
            for daemon in daemons:
                daemon.wait()


def begin(cluster: Cluster, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Begin a daemon of a cluster, which ends with this process, however that ends."""
    with (cluster.folder / "daemons.log").open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _daemons(cluster: Cluster) -> Iterator[tuple[Sequence[str], Callable[[], object]]]:
    """Yield what runs on the cluster, and how to see that it is up, in the order of their needs."""

    def answers(*command: str) -> Callable[[], bool]:
        def ask() -> bool:
            with contextlib.suppress(NoClusterError):
                return bool(cluster.call(*command)) or True
            return False

        return ask

    root, folder = cluster.root, cluster.folder
    key, munge = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    yield (
        (
            f"{root}/usr/sbin/munged",
            *("--foreground", "--force", "--num-threads=4"),
            f"--key-file={key}",
            f"--socket={munge}",
            f"--pid-file={folder}/munge.pid",
            f"--log-file={folder}/munge.log",
            f"--seed-file={folder}/munge.seed",
        ),
        munge.exists,
    )
    data, database = folder / "data", folder / "database.socket"
    mariadb = (
        *(f"{root}/usr/sbin/mariadbd", "--no-defaults", f"--basedir={root}/usr"),
        *(f"--datadir={data}", "--user=root", "--skip-grant-tables", "--skip-networking"),
        *("--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"),
    )
    data.mkdir()
    tables = (root / "usr/share/mysql/mysql_system_tables.sql").read_text()
    cluster.call(*mariadb, "--bootstrap", given=f"create database mysql;\nuse mysql;\n{tables}")
    yield (
        (*mariadb, f"--socket={database}", f"--pid-file={folder}/mariadb.pid"),
        database.exists,
    )
    yield (f"{root}/usr/sbin/slurmdbd", "-D"), answers("sacctmgr", "-n", "show", "cluster")
    for entity in (("cluster", "test"), ("account", "lab"), ("user", "root", "account=lab")):
        cluster.call("sacctmgr", "-i", "add", *entity)
    yield (f"{root}/usr/sbin/slurmctld", "-D"), answers("scontrol", "ping")
    for name in ("n1", "n2"):
        yield (
            (f"{root}/usr/sbin/slurmd", "-D", "-N", name, "-d", f"{root}/usr/sbin/slurmstepd"),
            lambda name=name: "idle" in cluster.call("sinfo", "-hN", "-n", name, "-o", "%T"),
        )


def _environment(root: Path, folder: Path) -> dict[str, str]:
    """Return the environment in which SLURM's programs find their libraries, and the cluster."""
    libraries = [
        str(path)
        for pattern in ("*-linux-gnu", "*-linux-gnu/slurm-wlm")
        for path in (root / "usr/lib").glob(pattern)
    ]
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SRUN_"))
    }
    return {
        **kept,
        "PATH": f"{folder}/bin:{root}/usr/bin:{root}/usr/sbin:{kept['PATH']}",
        "LD_LIBRARY_PATH": ":".join([*libraries, kept.get("LD_LIBRARY_PATH", "")]).rstrip(":"),
        "SLURM_CONF": str(folder / "slurm.conf"),
        "MYSQL_UNIX_PORT": str(folder / "database.socket"),
    }


def _configure(cluster: Cluster) -> None:
    """Write the configuration of a cluster."""
    folder = cluster.folder
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    (plugins,) = (cluster.root / "usr/lib").glob("*-linux-gnu/slurm-wlm")
    known = {
        "folder": folder,
        "host": platform.node().split(".")[0],
        "plugins": plugins,
        "ports": _free_ports(4),
    }
    (folder / "slurm.conf").write_text(SLURM.format(**known))
    accounting = folder / "slurmdbd.conf"
    accounting.write_text(ACCOUNTING.format(**known))
    accounting.chmod(0o600)
    (folder / "gres.conf").write_text(
        "NodeName=n1 Name=gpu File=/dev/tty[0-1]\nNodeName=n2 Name=gpu File=/dev/tty[2-3]\n"
    )
    (folder / "bin").mkdir()
    for name, text in (("prolog", PROLOG), ("epilog", EPILOG), ("bin/srun", SRUN)):
        (folder / name).write_text(text.format(folder=folder, root=cluster.root))
        (folder / name).chmod(0o755)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    try:
        with running() as up:
            sys.exit(subprocess.run(sys.argv[1:], env=up.environment, check=False).returncode)
    except NoClusterError as error:
        sys.exit(f"there can be no SLURM cluster here: {error}")
