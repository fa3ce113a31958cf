#!/usr/bin/env python3
"""A real, private SLURM on one Debian machine, on loopback only: several virtual nodes with fake GPUs, for tests.

    eval "$(python3 tests/cluster/cluster.py up --nodes 4 --accounting)"     # prints `export ...` lines
    sinfo; sbatch ...
    python3 tests/cluster/cluster.py down                                     # cancels, stops, wipes

Needs root and Debian; missing packages (slurm-wlm, munge; with accounting also slurmdbd, mariadb-server) are installed.
Everything lives in one state folder (`--state`, else $HARNESS_CLUSTER, else a fresh temporary one); outside of it only
two marked lines in /etc/hosts, removed by `down`. `up` twice is harmless: what already runs is left alone.
Standard library only, so that it runs before anything else is installed. It knows nothing about the harness.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

STATE_VARIABLE = "HARNESS_CLUSTER"
HOSTS = Path("/etc/hosts")
CGROUPS = Path("/sys/fs/cgroup")


class ClusterError(RuntimeError):
    """The cluster cannot be started or controlled; the text says why and where the logs are."""


class NotInstalled(ClusterError):
    """SLURM's packages are missing and cannot be had here."""


def unsupported() -> str | None:
    """Why this machine cannot run the cluster, or None."""
    if not Path("/etc/debian_version").exists():
        return "not Debian: the test cluster installs Debian's SLURM packages"
    if os.geteuid() != 0:
        return "not root: the test cluster starts system daemons"
    try:
        with tempfile.TemporaryDirectory() as folder, HOSTS.open("a"):
            os.mknod(f"{folder}/gpu0", 0o666 | 0o020000, os.makedev(1, 3))
    except OSError as error:
        return f"nodes cannot be named, or their devices not be made here: {error}"
    return None


@dataclass
class Cluster:
    """nodes, gpus and cpus are fictional (per node: gpus, cpus, memory_mb): keep nodes * cpus near what may really run.

    accounting: slurmdbd with a private MariaDB; without it `sacct` fails, as on many small clusters.
    gpus: one fake device each (a clone of /dev/null), so that CUDA_VISIBLE_DEVICES is set as on a GPU node.
    memory limits are enforced (OUT_OF_MEMORY is real) where version 1 cgroups are writable.
    """

    state: Path
    nodes: int = 4
    gpus: int = 8
    gpu_type: str = "a800"
    cpus: int = 4
    memory_mb: int = 64_000
    accounting: bool = False
    prefix: str = "vn"
    port: int = 0
    first_job: int = 1
    verbose: bool = False
    started: float = field(default_factory=time.time, repr=False)

    # ---- life ------------------------------------------------------------------------------------------------------

    def up(self) -> Cluster:
        """Install, configure, start; returns when every node is ready."""
        if reason := unsupported():
            raise ClusterError(reason)
        self.started = time.time()
        self._install()
        for name in ("log", "pid", "ctld", "dev"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_ports(13 + self.nodes)
        if self._write_configuration() and self.alive("slurmctld"):
            self.say("configuration changed, restarting the daemons")
            self._stop_slurm()
        self._name_hosts()
        os.environ["SLURM_CONF"] = str(self.conf)
        self._start_munge()
        if self.accounting:
            self._start_database()
        self.start_controller()
        for node in self.node_names:
            self.start_node(node)
        self.wait_for_nodes()
        self.say(f"{self.nodes} nodes ready ({'with' if self.accounting else 'without'} accounting)")
        return self

    def down(self, wipe: bool = True) -> None:
        """Cancel every job, stop exactly the daemons of this state folder, and (wipe) remove folder and host names."""
        if self.alive("slurmctld"):
            self.run("scancel", "-u", str(os.getuid()), check=False, timeout=10)
            running = ("squeue", "-h", "-t", "R,CG,S")
            self.wait("the queue to empty", lambda: not self.run(*running, check=False), 15, fatal=False)
        self._stop_slurm()
        for daemon in ("slurmdbd", "mariadbd", "munged"):
            self.stop(daemon)
        if wipe:
            edit_hosts(f"# {self.state}", [])
            shutil.rmtree(self.state, ignore_errors=True)

    def save(self) -> None:
        (self.state / "cluster.json").write_text(json.dumps(asdict(self) | {"state": str(self.state)}, indent=1))

    @classmethod
    def load(cls, state: Path) -> Cluster:
        try:
            values = json.loads((state / "cluster.json").read_text())
        except FileNotFoundError:
            raise ClusterError(f"no cluster in {state} (no cluster.json)") from None
        return cls(**values | {"state": Path(values["state"])})

    # ---- faults, for tests -------------------------------------------------------------------------------------------

    def start_controller(self, forget: bool = False) -> None:
        """forget: start with an empty queue, as after a lost state folder. Job ids begin a thousand later each time: a
        controller that was killed has forgotten its newest jobs, and a node that gets an id again refuses it and is drained.
        """
        if not self.alive("slurmctld"):
            self.first_job += 1000
            self._write_configuration()
            self.run("slurmctld", *(["-c"] if forget else []))
            self.wait("slurmctld", lambda: "is UP" in self.run("scontrol", "ping", check=False))

    def stop_controller(self, hard: bool = False) -> None:
        self.stop("slurmctld", hard=hard)

    def start_node(self, node: str) -> None:
        if not self.alive(f"slurmd.{node}"):
            (self.state / f"spool.{node}").mkdir(exist_ok=True)
            self.run("slurmd", "-N", node)

    def stop_node(self, node: str, hard: bool = True) -> None:
        self.stop(f"slurmd.{node}", hard=hard)

    def fail_node(self, node: str) -> None:
        """NODE_FAIL for what runs there, within a second."""
        self.run("scontrol", "update", f"node={node}", "state=down", "reason=test")

    def fail_next_launch(self) -> Path:
        """The next job's node cannot start it: SLURM drains the node, and holds the job for ever. A file that is gone when
        it has happened. Nodes forget the jobs they know: they run no prolog for an id that was there before."""
        for node in self.node_names:
            self.stop_node(node, hard=False)
            shutil.rmtree(self.state / f"spool.{node}")
            self.start_node(node)
        self.wait_for_nodes()
        fault = self.state / "fail-next-launch"
        fault.touch()
        return fault

    def resume_node(self, node: str) -> None:
        self.run("scontrol", "update", f"node={node}", "state=resume", check=False)

    def wait_for_nodes(self, seconds: float = 60) -> None:
        def ready() -> bool:
            lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", check=False).splitlines()
            states = [line.split() for line in lines]
            for node, state in states:
                if state.rstrip("*") in ("down", "drain", "drng", "inval"):
                    self.resume_node(node)
            return len(states) == self.nodes and all(state in {"idle", "mix", "alloc", "comp", "plnd"} for _, state in states)

        self.wait("the nodes", ready, seconds)

    # ---- commands and daemons ------------------------------------------------------------------------------------------

    @property
    def conf(self) -> Path:
        return self.state / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf), STATE_VARIABLE: str(self.state)}

    @property
    def node_names(self) -> list[str]:
        return [f"{self.prefix}{i}" for i in range(1, self.nodes + 1)]

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> str:
        """Standard output of a command that talks to this cluster. check=False: "" on failure."""
        env = os.environ | self.environment
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, env=env)
        except subprocess.TimeoutExpired:
            if not check:
                return ""
            raise ClusterError(f"{command[0]}: no answer in {timeout:.0f} s; logs in {self.state / 'log'}") from None
        if done.returncode and check:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}; logs in {self.state / 'log'}")
        return "" if done.returncode else done.stdout

    def pid(self, daemon: str) -> int | None:
        """The daemon's process, when its pid file names a living process of that name."""
        try:
            pid = int((self.state / "pid" / f"{daemon}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if process_name(pid) == daemon.split(".")[0] else None

    def alive(self, daemon: str) -> bool:
        return self.pid(daemon) is not None

    def stop(self, daemon: str, hard: bool = False) -> None:
        if (pid := self.pid(daemon)) is None:
            return
        os.kill(pid, signal.SIGKILL if hard else signal.SIGTERM)
        if not self.wait(f"{daemon} to stop", lambda: not process_name(pid), 10, fatal=False):
            os.kill(pid, signal.SIGKILL)
        (self.state / "pid" / f"{daemon}.pid").unlink(missing_ok=True)

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 20, fatal: bool = True) -> bool:
        deadline = time.time() + seconds
        while not condition():
            if time.time() > deadline:
                if fatal:
                    raise ClusterError(f"waited {seconds:.0f} s for {what}; logs in {self.state / 'log'}")
                return False
            time.sleep(0.05)
        return True

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"[{time.time() - self.started:5.1f} s] {text}", file=sys.stderr, flush=True)

    def _stop_slurm(self) -> None:
        self.stop("slurmctld")
        for node in self.node_names:
            self.stop(f"slurmd.{node}")
            for folder in sorted(CGROUPS.glob(f"*/slurm_{node}/**/"), reverse=True):
                with suppress(OSError):
                    folder.rmdir()

    # ---- installation and configuration ----------------------------------------------------------------------------

    def _install(self) -> None:
        wanted = ["slurm-wlm", "munge"] + (["slurmdbd", "mariadb-server"] if self.accounting else [])
        query = ["dpkg-query", "-W", "-f", "${Package} ${Status}\n", *wanted]
        known = subprocess.run(query, check=False, capture_output=True, text=True).stdout
        missing = [package for package in wanted if f"{package} install ok installed\n" not in known]
        if not missing:
            return
        if not shutil.which("apt-get"):
            raise NotInstalled(f"{' '.join(missing)} missing, and there is no apt-get")
        self.say(f"installing {' '.join(missing)}")
        policy = Path("/usr/sbin/policy-rc.d")  # keeps apt from starting the system's own daemons
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
            for command in (["apt-get", "update", "-qq"], install):
                done = subprocess.run(command, check=False, capture_output=True, text=True, env=quiet)
                if done.returncode:
                    raise NotInstalled(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
        finally:
            if ours:
                policy.unlink()

    def _name_hosts(self) -> None:
        """The host and the nodes resolve to loopback: a job's MASTER_ADDR is a node name."""
        lines = [f"127.0.0.1 {' '.join(self.node_names)}"]
        host = socket.gethostname().split(".")[0]
        try:
            known = socket.gethostbyname(host).startswith("127.")
        except OSError:
            known = False
        lines += [] if known else [f"127.0.0.1 {host}"]
        edit_hosts(f"# {self.state}", lines)

    def _write_configuration(self) -> bool:
        """True when a configuration file changed."""
        state, user, host = self.state, "root", socket.gethostname().split(".")[0]
        limits = all(os.access(CGROUPS / name, os.W_OK) for name in ("memory", "freezer", "cpuset"))
        gres = f"Gres=gpu:{self.gpu_type}:{self.gpus}" if self.gpus else ""
        slurm = Path(__file__).with_name("slurm.conf").read_text().format(
            prefix=self.prefix, host=host, port=self.port, user=user, state=state, first_job=self.first_job
        )
        if limits:
            slurm += "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup\nJobAcctGatherType=jobacct_gather/cgroup\n"
        else:
            slurm += "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/linux\n"
        if self.accounting:
            slurm += f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self.port + 1}
AccountingStoragePass={state}/munge.sock
"""
        else:
            slurm += "AccountingStorageType=accounting_storage/none\n"
        if self.gpus:
            slurm += "GresTypes=gpu\n" + ("AccountingStorageTRES=gres/gpu\n" if self.accounting else "")
        for i, node in enumerate(self.node_names):
            slurm += (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + 10 + i}"
                f" CPUs={self.cpus} RealMemory={self.memory_mb} {gres} State=UNKNOWN\n"
            )
        shared = "Nodes=ALL MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=100 State=UP"
        slurm += f"""\
PartitionName=main {shared} Default=YES PriorityTier=5 PreemptMode=off
PartitionName=urgent {shared} PriorityTier=10 PreemptMode=off
PartitionName=spare {shared} PriorityTier=1 PreemptMode=requeue GraceTime=10
PartitionName=short {shared.replace("INFINITE", "2")} PriorityTier=5 PreemptMode=off
"""
        gres_lines = ""
        # A count without files would register no GPU; device files also set CUDA_VISIBLE_DEVICES.
        for i in range(self.gpus):
            device = state / "dev" / f"gpu{i}"
            if not device.exists():
                os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
        if self.gpus:
            for node in self.node_names:
                gres_lines += f"NodeName={node} Name=gpu Type={self.gpu_type} File={state}/dev/gpu[0-{self.gpus - 1}]\n"
        cgroup = "CgroupPlugin=cgroup/v1\nCgroupAutomount=yes\nConstrainRAMSpace=yes\n"
        prolog = state / "prolog"
        prolog.write_text(f"#!/bin/sh\n! rm {state}/fail-next-launch 2>/dev/null\n")
        prolog.chmod(0o755)
        changed = False
        for name, text in {"slurm.conf": slurm, "gres.conf": gres_lines, "cgroup.conf": cgroup}.items():
            path = state / name
            changed |= not path.exists() or path.read_text() != text
            beside = path.with_suffix(".new")  # commands may be reading it
            beside.write_text(text)
            beside.replace(path)
        self.save()
        return changed

    def _start_munge(self) -> None:
        if self.alive("munged"):
            return
        key = self.state / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(128))
        state = self.state
        self.run(
            "munged", "--force", f"--key-file={key}", f"--socket={state}/munge.sock", f"--seed-file={state}/munge.seed",
            f"--log-file={state}/log/munged.log", f"--pid-file={state}/pid/munged.pid",
        )  # fmt: skip

    def _start_database(self) -> None:
        data = self.state / "database"
        if not (data / "mysql").exists():
            self.run(
                "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
                "--auth-root-authentication-method=normal",
            )  # fmt: skip
        client = ["mariadb", "--no-defaults", "-h127.0.0.1", f"-P{self.port + 2}", "-uslurm", "-pslurm", "slurm_acct_db"]
        if not self.alive("mariadbd"):
            grants = self.state / "grants.sql"
            grants.write_text(
                "CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n"
                "CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';\n"
                "GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';\n"
            )
            with (self.state / "log" / "mariadbd.log").open("a") as log:
                subprocess.Popen(
                    [
                        "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={self.state}/database.sock",
                        f"--pid-file={self.state}/pid/mariadbd.pid", "--bind-address=127.0.0.1", f"--port={self.port + 2}",
                        "--skip-log-bin", "--performance-schema=0", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M",
                        "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve",
                        f"--init-file={grants}",
                    ],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self.wait("mariadbd", lambda: "1" in self.run(*client, "-e", "select 1", check=False), 30)
        if not self.alive("slurmdbd"):
            conf = self.state / "slurmdbd.conf"
            conf.touch(mode=0o600)
            conf.write_text(
                f"AuthType=auth/munge\nAuthInfo=socket={self.state}/munge.sock\nDbdHost={socket.gethostname().split('.')[0]}\n"
                f"DbdAddr=127.0.0.1\nDbdPort={self.port + 1}\nSlurmUser=root\nCommunicationParameters=NoInAddrAny\n"
                f"LogFile={self.state}/log/slurmdbd.log\nPidFile={self.state}/pid/slurmdbd.pid\n"
                f"StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\nStoragePort={self.port + 2}\n"
                "StorageUser=slurm\nStoragePass=slurm\nStorageLoc=slurm_acct_db\n"
            )
            self.run("slurmdbd")
            self.wait("slurmdbd", lambda: "cpu" in self.run("sacctmgr", "-n", "show", "tres", check=False), 30)


def process_name(pid: int) -> str:
    """"" when there is no such process, or only its zombie. A daemon removes its pid file before it has ended."""
    try:
        name, status = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(") ", 1)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if status.startswith("Z") else name


def free_ports(count: int) -> int:
    """The first of `count` free consecutive ports, below the range that the kernel hands out."""
    for _ in range(100):
        first = random.randrange(18_000, 32_000 - count)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise ClusterError(f"found no {count} free consecutive ports on loopback")


def edit_hosts(marker: str, lines: list[str]) -> None:
    """Replace the lines that end with `marker` by these."""
    kept = [line for line in HOSTS.read_text().splitlines() if not line.endswith(marker)]
    HOSTS.write_text("\n".join(kept + [f"{line} {marker}" for line in lines]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start (prints export lines)")
    down = verbs.add_parser("down", help="cancel, stop and wipe")
    for verb in (up, down):
        verb.add_argument("--state", type=Path, default=os.environ.get(STATE_VARIABLE), help="folder of all state")
    defaults = Cluster(Path())
    for name, text in {
        "nodes": "virtual nodes", "gpus": "fake GPUs per node", "cpus": "fictional CPUs per node",
        "memory_mb": "fictional memory per node", "port": "first of some consecutive ports (default: free ones)",
    }.items():  # fmt: skip
        option, default = f"--{name.replace('_', '-')}", getattr(defaults, name)
        up.add_argument(option, type=int, default=default, help=f"{text} (%(default)s)")
    up.add_argument("--gpu-type", default=defaults.gpu_type, help="their type (%(default)s)")
    up.add_argument("--prefix", default=defaults.prefix, help="nodes are called <prefix>1, ... (%(default)s)")
    up.add_argument("--accounting", action="store_true", help="slurmdbd with a private MariaDB, so that sacct works")
    down.add_argument("--keep", action="store_true", help="stop, but keep the state folder")
    options = vars(parser.parse_args())
    verb, state = options.pop("verb"), options.pop("state")
    try:
        if verb == "up":
            folder = Path(state or tempfile.mkdtemp(prefix="cluster-")).absolute()
            if (folder / "cluster.json").exists():  # ports and ids are kept, so that a second `up` finds what already runs
                before = Cluster.load(folder)
                options |= {"port": options["port"] or before.port, "first_job": before.first_job}
            cluster = Cluster(state=folder, verbose=True, **options).up()
            for name, value in cluster.environment.items():
                print(f"export {name}={value}")
        elif state is None:
            raise ClusterError(f"which cluster? give --state DIR or set {STATE_VARIABLE}")
        else:
            Cluster.load(Path(state).absolute()).down(wipe=not options["keep"])
    except ClusterError as error:
        sys.exit(f"cluster: {error}")


if __name__ == "__main__":
    main()
