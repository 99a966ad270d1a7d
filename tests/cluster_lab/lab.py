"""A laptop and a few hosts on one machine, for tests of what happens between hosts.

Each host has network, PID, mount and UTS namespaces of its own and an SSH server in them; the file system is the
machine's, but for home, /tmp/ray and /dev/shm. PID namespaces matter: `ray stop` ends every Ray that it can see.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "rsync": "rsync",
    "unshare": "util-linux",
    "curl": "curl",
    "make": "make",
}  # and their packages
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = "10.77.0"


def missing() -> str:
    """What keeps the lab from working here, with its remedy; empty where nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    packages = [package for tool, package in TOOLS.items() if shutil.which(tool, path=SYSTEM_PATH) is None]
    if packages:
        return f"apt-get install {' '.join(packages)}"
    probe = f"probe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "this machine does not let root make network namespaces"
    run("ip", "netns", "del", probe)
    return ""


def run(*command: str | Path) -> str:
    """Output of a command that must work."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Lab:
    """A context: the hosts are there inside of it. The first is 10.77.0.1, the next .2, and so on.

    Args:
        folder: empty, absolute, outside of /tmp/ray and of the account's home folder.
        hosts: names.
    """

    def __init__(self, folder: Path, hosts: tuple[str, ...]) -> None:
        self.folder, self.hosts = folder, hosts
        self.addresses = {host: f"{NETWORK}.{number}" for number, host in enumerate(hosts, start=1)}
        self.key = folder / "key"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def namespace(self, host: str) -> str:
        return f"lab{os.getpid()}-{host}"

    def home(self, host: str) -> Path:
        """A host's home folder as it is seen from outside."""
        return self.folder / host / "home"

    def __enter__(self) -> Lab:
        try:
            self._make()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.end()

    def _make(self) -> None:
        laptop = self.namespace("laptop")
        self.home("laptop").mkdir(parents=True)
        for key in (self.key, self.folder / "hostkey"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        run("ip", "netns", "add", laptop)
        run("ip", "-n", laptop, "link", "set", "lo", "up")
        run("ip", "-n", laptop, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", laptop, "addr", "add", f"{NETWORK}.254/24", "dev", "bridge")
        run("ip", "-n", laptop, "link", "set", "bridge", "up")
        for host, address in self.addresses.items():
            here = self.namespace(host)
            run("ip", "netns", "add", here)
            run("ip", "-n", here, "link", "set", "lo", "up")
            run("ip", "-n", laptop, "link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth0", "netns", here)
            run("ip", "-n", laptop, "link", "set", f"to-{host}", "master", "bridge", "up")
            run("ip", "-n", here, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", here, "link", "set", "eth0", "up")
            run("ip", "-n", here, "route", "add", "default", "via", f"{NETWORK}.254")
            self._install(host)
            self._start(host, address)
        for host in self.hosts:
            self._wait_for(host)

    def _install(self, host: str) -> None:
        """The environment of this test's interpreter where `make setup` would put one, so that it has nothing to do."""
        environment = self.home(host) / "inpaint-grid" / ".venv"
        environment.mkdir(parents=True)
        for path in Path(sys.prefix).iterdir():
            (environment / path.name).symlink_to(path)
        (environment / ".installed").unlink(missing_ok=True)
        (environment / ".installed").touch()

    def _start(self, host: str, address: str) -> None:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # where SSH logs in, whatever $HOME says
        wanted = (Path(sys.base_prefix), Path(sys.prefix).resolve(), Path(sys.prefix), ROOT)
        keep = sorted({str(path) for path in wanted if path.is_relative_to(home)})
        command = ["ip", "netns", "exec", self.namespace(host), "unshare", "--pid", "--mount", "--uts", "--fork"]
        command += ["--mount-proc", "--kill-child", "--propagation", "private"]
        command += ["bash", str(Path(__file__).with_name("node.sh")), str(self.folder), host, address, str(home), *keep]
        with (self.folder / f"{host}.log").open("w") as log:
            self._processes[host] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _wait_for(self, host: str) -> None:
        deadline = time.monotonic() + 60
        while self.ssh(host, "true").returncode:
            assert self._processes[host].poll() is None, (self.folder / f"{host}.log").read_text()
            assert time.monotonic() < deadline, f"no SSH server answers on {host}"
            time.sleep(0.2)

    def ssh(self, host: str, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a login shell of a host, from the laptop."""
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        target = f"root@{self.addresses[host]}"
        return self.laptop("ssh", *quiet, "-i", str(self.key), target, f"bash -lc {_quoted(command)}")

    def laptop(self, *command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a command as the laptop."""
        variables = {
            "HOME": str(self.home("laptop")),
            "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
            "RAY_TMPDIR": str(self.folder / "laptop" / "ray"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        inside = ["ip", "netns", "exec", self.namespace("laptop"), *command]
        return subprocess.run(inside, cwd=cwd, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def processes(self, host: str) -> list[str]:
        """Command lines of what runs on a host."""
        lines = []
        for pid in run("ip", "netns", "pids", self.namespace(host)).split():
            try:
                lines.append(Path("/proc", pid, "cmdline").read_text().replace("\0", " ").strip())
            except OSError:  # ended meanwhile
                continue
        return lines

    def end(self) -> None:
        """End every process of the hosts and remove their networks."""
        for process in self._processes.values():
            process.kill()  # and with it, by --kill-child, everything in its PID namespace
            process.wait()
        for host in (*self.hosts, "laptop"):
            subprocess.run(["ip", "netns", "del", self.namespace(host)], capture_output=True)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
