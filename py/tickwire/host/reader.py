"""Reads what the kernel says of a host, and says honestly where it says nothing.

Three answers there are to every question: a value, `Absent` (this kernel or machine has no such thing)
and `Unreadable` (there may be one, but not for us: no permission, no /proc or /sys at all, or text that
is not understood). Checks let both pass; whoever runs them makes "not applicable" of the one and
"unknown" of the other.

Nothing here writes, and nothing needs root. `root` is another place than "/" for a host's files that
were brought here, and for tests.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["Absent", "Reader", "Unreadable", "format_cpus", "format_mask", "parse_cpus", "parse_mask"]

# What a command that only asks may take. A daemon that does not answer is one we know nothing of.
_COMMAND_S = 3.0


class Absent(Exception):
    """The host has no such file, directory or command."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where}: not on this host")
        self.where = where


class Unreadable(Exception):
    """The host may have it, but we cannot read or understand it."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where


def parse_cpus(text: str) -> frozenset[int]:
    """The CPUs in a kernel list, `"0-3,8"`. Empty, `"(null)"` and `"none"` are no CPUs. ValueError."""
    text = text.strip()
    if text in ("", "(null)", "none"):
        return frozenset()
    cpus: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+)(?::(\d+)/(\d+))?)?\s*", part)
        if match is None:
            raise ValueError(f"expected a CPU list like 0-3,8, found {text!r}")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first or last >= 1 << 16:
            raise ValueError(f"expected a CPU list like 0-3,8, found {text!r}")
        used, group = (int(match[3]), int(match[4])) if match[3] else (1, 1)
        if not 0 < used <= group:
            raise ValueError(f"expected a CPU list like 0-3,8, found {text!r}")
        cpus |= {cpu for cpu in range(first, last + 1) if (cpu - first) % group < used}
    return frozenset(cpus)


def parse_mask(text: str) -> frozenset[int]:
    """The CPUs in a kernel mask, `"00000000,0000000f"`: groups of 32 bits, the highest first. ValueError."""
    groups = text.strip().split(",")
    if not all(re.fullmatch(r"[0-9a-fA-F]{1,8}", group) for group in groups):
        raise ValueError(f"expected a CPU mask in hexadecimal, found {text.strip()!r}")
    value = 0
    for group in groups:
        value = value << 32 | int(group, 16)
    return frozenset(bit for bit in range(value.bit_length()) if value >> bit & 1)


def format_cpus(cpus: Iterable[int]) -> str:
    """As the kernel writes a list: `"0-3,8"`."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def format_mask(cpus: Iterable[int]) -> str:
    """As the kernel reads and writes a mask: `"1,0000000f"`."""
    value = sum(1 << cpu for cpu in cpus)
    groups = []
    while True:
        groups.append(value & 0xFFFFFFFF)
        value >>= 32
        if not value:
            break
    return ",".join([f"{groups[-1]:x}", *(f"{group:08x}" for group in reversed(groups[:-1]))])


class Reader:
    """One host's files below `root`, and the answers of a few commands that only ask.

    `commands`: answers by command line, instead of running anything; none where `root` is another place.
    """

    def __init__(self, root: str | os.PathLike[str] = "/", commands: Mapping[str, str] | None = None) -> None:
        self.root = Path(root)
        self._commands = commands if self.root == Path("/") else dict(commands or {})

    @property
    def live(self) -> bool:
        """This very host, and not files that were brought from another."""
        return self.root == Path("/")

    def _path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str:
        """A file's text without the white space around it."""
        try:
            return self._path(path).read_bytes().decode("utf-8", "replace").strip()
        except OSError as error:
            raise self._explained(path, error) from None

    def _explained(self, path: str, error: OSError) -> Absent | Unreadable:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            tree = path.lstrip("/").split("/")[0]
            if tree in ("proc", "sys") and not self._filled(tree):
                return Unreadable(path, f"/{tree} shows nothing here")
            return Absent(path)
        return Unreadable(path, error.strerror or str(error))

    def _filled(self, tree: str) -> bool:
        try:
            with os.scandir(self.root / tree) as entries:
                return next(entries, None) is not None
        except OSError:
            return False

    def maybe(self, path: str) -> str | None:
        """As text(), but None where the host has no such file."""
        try:
            return self.text(path)
        except Absent:
            return None

    def number(self, path: str) -> int:
        text = self.text(path)
        try:
            return int(text)
        except ValueError:
            raise Unreadable(path, f"expected a number, found {text[:60]!r}") from None

    def cpus(self, path: str) -> frozenset[int]:
        """A CPU list."""
        try:
            return parse_cpus(self.text(path))
        except ValueError as error:
            raise Unreadable(path, str(error)) from None

    def mask(self, path: str) -> frozenset[int]:
        """A CPU mask."""
        try:
            return parse_mask(self.text(path))
        except ValueError as error:
            raise Unreadable(path, str(error)) from None

    def names(self, path: str) -> list[str]:
        """What is in a directory, in order: numbers as numbers."""
        try:
            names = os.listdir(self._path(path))
        except OSError as error:
            raise self._explained(path, error) from None
        return sorted(
            names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
        )

    def has(self, path: str) -> bool:
        """Is there such a file? Not knowing it, for want of permission on the way there, is Unreadable."""
        try:
            self._path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise Unreadable(path, error.strerror or str(error)) from None
        return True

    def writable_by_root(self, path: str) -> bool:
        """Has the kernel given the file any write bit? Without one not even root can change it."""
        try:
            return bool(self._path(path).stat().st_mode & 0o222)
        except OSError as error:
            raise self._explained(path, error) from None

    def command(self, *words: str) -> str:
        """What a command prints. Only commands that ask and change nothing."""
        line = " ".join(words)
        if self._commands is not None:
            if line not in self._commands:
                raise Absent(words[0])
            return self._commands[line]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
        except FileNotFoundError:
            raise Absent(words[0]) from None
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreadable(line, str(error)) from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Unreadable(line, said[-1] if said else f"exit code {done.returncode}")
        return done.stdout

    # What several checks ask for.

    def kernel(self) -> tuple[int, int]:
        """The running kernel's version, (6, 12)."""
        path = "/proc/sys/kernel/osrelease"
        text = self.text(path)
        match = re.match(r"(\d+)\.(\d+)", text)
        if match is None:
            raise Unreadable(path, f"expected a version, found {text[:60]!r}")
        return int(match[1]), int(match[2])

    def cmdline(self) -> dict[str, list[str]]:
        """The kernel's boot line: values by key, in order; a word without a value has the value ""."""
        words: dict[str, list[str]] = {}
        for word in self.text("/proc/cmdline").split(" -- ")[0].split():
            key, _, value = word.partition("=")
            words.setdefault(key.replace("-", "_"), []).append(value)
        return words

    def online(self) -> frozenset[int]:
        """The CPUs that run. Where /sys does not tell, those that /proc/stat counts."""
        try:
            return self.cpus("/sys/devices/system/cpu/online")
        except (Absent, Unreadable):
            counted = re.findall(r"^cpu(\d+) ", self.text("/proc/stat"), re.MULTILINE)
            if not counted:
                raise Unreadable("/proc/stat", "expected a line for each CPU") from None
            return frozenset(map(int, counted))

    def processes(self) -> dict[str, list[int]]:
        """Process ids by name. Unreadable where only some can be seen: a container, or a /proc that hides
        other users' processes. What does not show there may run all the same."""
        if self.maybe("/proc/2/comm") != "kthreadd":
            raise Unreadable("/proc", "shows only some of this host's processes")
        found: dict[str, list[int]] = {}
        for name in self.names("/proc"):
            if name.isdecimal():
                try:
                    found.setdefault(self.text(f"/proc/{name}/comm"), []).append(int(name))
                except (Absent, Unreadable):
                    continue  # It has ended, or is hidden from us.
        return found

    def interrupts(self) -> dict[str, tuple[str, dict[int, int]]]:
        """/proc/interrupts: by row, its description and its count on each CPU."""
        path = "/proc/interrupts"
        lines = self.text(path).splitlines()
        heads = re.findall(r"CPU(\d+)", lines[0]) if lines else []
        if not heads:
            raise Unreadable(path, "expected a column for each CPU")
        cpus = [int(head) for head in heads]
        rows = {}
        for line in lines[1:]:
            name, _, rest = line.partition(":")
            words = rest.split()
            counts = []
            for word in words[: len(cpus)]:
                if not word.isdecimal():
                    break
                counts.append(int(word))
            if len(counts) == len(cpus):  # ERR and MIS have one count for all.
                rows[name.strip()] = (
                    " ".join(words[len(cpus) :]),
                    dict(zip(cpus, counts, strict=True)),
                )
        return rows

    def cpu_times(self) -> dict[int, dict[str, int]]:
        """/proc/stat: by CPU, the ticks in each state since boot."""
        names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
        times = {}
        for cpu, rest in re.findall(r"^cpu(\d+) +([\d ]+)$", self.text("/proc/stat"), re.MULTILINE):
            times[int(cpu)] = dict(zip(names, map(int, rest.split()), strict=False))
        if not times:
            raise Unreadable("/proc/stat", "expected a line for each CPU")
        return times

    def interfaces(self) -> list[str]:
        """Network interfaces of hardware, or of a hypervisor's; those of software have no device."""
        return [name for name in self.names("/sys/class/net") if self.has(f"/sys/class/net/{name}/device")]

    def nodes(self) -> dict[int, frozenset[int]]:
        """CPUs by memory node. A kernel without nodes has one with all."""
        try:
            names = self.names("/sys/devices/system/node")
        except Absent:
            return {0: self.online()}
        found = [int(name[4:]) for name in names if re.fullmatch(r"node\d+", name)]
        if not found:
            return {0: self.online()}
        return {node: self.cpus(f"/sys/devices/system/node/node{node}/cpulist") for node in found}
