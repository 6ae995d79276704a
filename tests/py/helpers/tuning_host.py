"""A host that is not there: fake /proc, /sys, /dev and /etc trees, and the kernel's side of a write.

The tuning scripts take the tree by TICKWIRE_TUNING_ROOT. What the kernel would do with a write (move an
interrupt, refuse one, give fewer pages, put brackets around a choice) is done by a `tee` on the path of
the scripts, and so are `mkdir` and `rmdir` of a cgroup, `ethtool` and `systemctl`.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from needs import ROOT

SCRIPTS = ROOT / "scripts" / "tuning"

_FAKES = {
    "tee": r"""
path="${@: -1}" name="${path#"$TICKWIRE_TUNING_ROOT"}"
IFS= read -r value
listed() { [ -e "$FAKE/$1" ] && grep -qxF -- "$name" "$FAKE/$1"; }
fail() { echo "tee: $path: $1" >&2; exit 1; }
printf '%s %s\n' "$name" "$value" >>"$FAKE/writes"
if listed kill-before; then kill -9 0; fi
if listed eio; then fail 'Input/output error'; fi
if listed einval; then fail 'Invalid argument'; fi
if listed ignored; then exit 0; fi
if listed in-use; then value=3 && echo 3 >"${path%/*}/surplus_hugepages"; fi
if listed clamped && [ "$value" -gt 100 ]; then value=100; fi
case "$name" in
  */transparent_hugepage/enabled | */transparent_hugepage/defrag)
    words="$(tr -d '[]' <"$path")"
    case " $words " in *" $value "*) ;; *) fail 'Invalid argument' ;; esac
    words=" $words " words="${words/ "$value" / [$value] }" words="${words# }" value="${words% }" ;;
  */cgroup.subtree_control)
    old="$(cat "$path")"
    case "$value" in
      +*) value="${old:+$old }${value#+}" ;;
      -*) value="$(tr ' ' '\n' <<<"$old" | grep -vxF -- "${value#-}" | paste -sd' ' -)" ;;
    esac ;;
  */cpuset.cpus.partition)
    if [ "$value" = isolated ] && listed invalid; then value='isolated invalid (Cpu list in use)'; fi ;;
  */smp_affinity_list)
    if ! listed pending; then printf '%s\n' "$value" >"${path%/*}/effective_affinity_list"; fi ;;
esac
if [ "$name" != /proc/sys/vm/compact_memory ]; then printf '%s\n' "$value" >"$path"; fi
if listed kill-after; then kill -9 0; fi
""",
    "mkdir": r"""
PATH="$REAL_PATH" mkdir "$@" || exit
case "${@: -1}" in
  "$TICKWIRE_TUNING_ROOT"/sys/fs/cgroup/*)
    cd "${@: -1}" && echo member >cpuset.cpus.partition && echo >cpuset.cpus && : >cgroup.procs ;;
esac
""",
    "rmdir": r"""
folder="${@: -1}"
case "$folder" in
  "$TICKWIRE_TUNING_ROOT"/sys/fs/cgroup/*)
    if [ -s "$folder/cgroup.procs" ]; then echo "rmdir: $folder: Device or resource busy" >&2; exit 1; fi
    rm -f "$folder"/cpuset.cpus* "$folder/cgroup.procs" ;;
esac
PATH="$REAL_PATH" exec rmdir "$@"
""",
    "ethtool": r"""
# State: one file a parameter in $FAKE/nic/IF; rules in $FAKE/nic/IF/rules.
echo "ethtool $*" >>"$FAKE/writes"
nic="$FAKE/nic/$2"
[ -d "$nic" ] || { echo "netlink error: No such device" >&2; exit 1; }
get() { cat "$nic/$1"; }
if [ -e "$FAKE/ethtool-fails" ] && grep -qxF -- "$*" "$FAKE/ethtool-fails"; then
  echo 'netlink error: Operation not supported' >&2
  exit 1
fi
case "$1" in
  -c) printf 'Coalesce parameters for %s:\nAdaptive RX: %s  TX: off\nrx-usecs:\t%s\nrx-frames:\t0\n' \
        "$2" "$(get adaptive-rx)" "$(get rx-usecs)" ;;
  -C) printf '%s\n' "$4" >"$nic/$3" ;;
  -g) printf 'Ring parameters for %s:\nPre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\nTX:\t\t4096\n' "$2"
      printf 'Current hardware settings:\nRX:\t\t%s\nRX Mini:\tn/a\nTX:\t\t512\n' "$(get rx-ring)" ;;
  -G) printf '%s\n' "$4" >"$nic/rx-ring" ;;
  -k) printf 'Features for %s:\nrx-checksumming: on\nntuple-filters: %s\n' "$2" "$(get ntuple)" ;;
  -K) printf '%s\n' "$4" >"$nic/ntuple" ;;
  -n) [ -e "$nic/rules/$4" ] || { echo 'rmgr: Cannot get RX class rule: No such file' >&2; exit 1; }
      read -r type address port queue <"$nic/rules/$4"
      printf 'Filter: %s\n\tRule Type: %s over IPv4\n\tSrc IP addr: 0.0.0.0 mask: 255.255.255.255\n' \
        "$4" "$(tr a-z A-Z <<<"${type%4}")"
      printf '\tDest IP addr: %s mask: 0.0.0.0\n\tSrc port: 0 mask: 0xffff\n\tDest port: %s mask: 0x0\n' \
        "$address" "$port"
      printf '\tAction: Direct to queue %s\n' "$queue" ;;
  -N) [ "$(get ntuple)" = on ] || { echo 'rmgr: Cannot insert RX class rule' >&2; exit 1; }
      if [ "$3" = delete ]; then rm "$nic/rules/$4"; else echo "$4 $6 $8 ${10}" >"$nic/rules/${12}"; fi ;;
esac
""",
    "systemctl": r"""
echo "systemctl $*" >>"$FAKE/writes"
case "$1 $2" in
  'is-active --quiet') [ -e "$FAKE/active" ] && grep -qxF -- "$3" "$FAKE/active" ;;
  'try-restart irqbalance.service')
    if [ -e "$FAKE/no-restart" ]; then echo 'Job failed.' >&2; exit 1; fi
    # It would look at its environment and move what is on banned CPUs.
    if [ -e "$FAKE/irqbalance-moves" ]; then
      for irq in "$TICKWIRE_TUNING_ROOT"/proc/irq/[0-9]*; do
        cat "$FAKE/irqbalance-moves" >"$irq/effective_affinity_list"
      done
    fi ;;
esac
""",
}

# Kills the script itself right before its Nth command; with N = 0 it only says how many there were.
_KILLER = r"""
if [ "${0##*/}" = "$KILL_SCRIPT" ]; then
  set -o functrace
  _kill_n=0
  if [ "$KILL_AT" = 0 ]; then
    trap '((++_kill_n % 20)) || [ "$BASHPID" != $$ ] || echo $_kill_n >"$FAKE/count"' DEBUG
  else
    trap '((++_kill_n != KILL_AT)) || [ "$BASHPID" != $$ ] || kill -9 $$' DEBUG
  fi
fi
"""


def kernel_mask(bits: int) -> str:
    """As the kernel prints it: groups of 32 bits, with commas."""
    groups = []
    while True:
        groups.append(bits & 0xFFFFFFFF)
        bits >>= 32
        if not bits:
            return ",".join([f"{groups[-1]:x}", *(f"{group:08x}" for group in groups[-2::-1])])


@dataclass
class Host:
    """A tree below `folder/root`, and what was asked of it."""

    folder: Path
    kernel: str = "6.18.0"
    cpus: int = 8
    nodes: int = 2
    cgroup: int = 2
    irqbalance: bool = False
    irqs: dict[int, tuple[str, str]] = field(
        default_factory=lambda: {1: ("0-7", "timer"), 24: ("0-7", "eth1-rx-0"), 25: ("2-3", "eth1-rx-1")}
    )

    def __post_init__(self) -> None:
        self.root = self.folder / "root"
        self.fake = self.folder / "fake"
        self.state = self.folder / "state"
        self.bin = self.folder / "bin"
        for path in (self.root, self.fake, self.bin):
            path.mkdir(parents=True)
        for name, text in _FAKES.items():
            (self.bin / name).write_text("#!/usr/bin/env bash\n" + text)
            (self.bin / name).chmod(0o755)
        (self.folder / "killer.sh").write_text(_KILLER)
        self._build()

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
        file.chmod(mode)

    def get(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text().rstrip("\n")

    def fault(self, kind: str, *targets: str) -> None:
        """Which targets the fake kernel treats in this way: eio, einval, ignored, clamped, …"""
        (self.fake / kind).write_text("".join(f"{target}\n" for target in targets))

    def _build(self) -> None:
        cpus, online = self.cpus, f"0-{self.cpus - 1}"
        major, minor = (int(part) for part in self.kernel.split(".")[:2])
        mask = kernel_mask((1 << cpus) - 1)
        self.put("/proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555")
        self.put("/proc/sys/kernel/osrelease", self.kernel)
        self.put("/proc/cmdline", "root=/dev/vda1 quiet")
        self.put("/proc/mounts", f"sysfs {self.root}/sys sysfs rw,nosuid 0 0")
        self.put("/proc/1/comm", "systemd")
        self.put("/proc/2/comm", "kthreadd")
        for number, (affinity, action) in self.irqs.items():
            self.put(f"/proc/irq/{number}/smp_affinity_list", affinity)
            self.put(f"/proc/irq/{number}/effective_affinity_list", affinity.split("-")[-1])
            (self.root / f"proc/irq/{number}/{action}").mkdir()
        self.put("/proc/irq/default_smp_affinity", mask)
        values = {
            "kernel/timer_migration": "1",
            "kernel/watchdog_cpumask": online,
            "kernel/nmi_watchdog": "1",
            "kernel/sched_rt_runtime_us": "950000",
            "kernel/numa_balancing": "1",
            "vm/stat_interval": "1",
            "vm/compaction_proactiveness": "20",
            "vm/swappiness": "60",
            "vm/compact_memory": "",
            "net/core/rmem_max": "212992",
            "net/core/netdev_max_backlog": "1000",
            "net/core/busy_read": "0",
            "net/core/busy_poll": "0",
        }
        for name, value in values.items():
            self.put(f"/proc/sys/{name}", value)
        self.put("/sys/devices/system/cpu/online", online)
        self.put("/sys/devices/system/cpu/isolated", "")
        if (major, minor) >= (6, 1):
            self.put("/sys/devices/system/cpu/nohz_full", "(null)")
        per_node = cpus // self.nodes
        for node in range(self.nodes):
            base = f"/sys/devices/system/node/node{node}"
            self.put(f"{base}/cpulist", f"{node * per_node}-{(node + 1) * per_node - 1}")
            for size in ("2048kB", "1048576kB"):
                self.put(f"{base}/hugepages/hugepages-{size}/nr_hugepages", "0")
        for cpu in range(cpus):
            base = f"/sys/devices/system/cpu/cpu{cpu}"
            self.put(f"{base}/power/pm_qos_resume_latency_us", "0")
            self.put(f"{base}/topology/thread_siblings_list", str(cpu))
            policy = f"/sys/devices/system/cpu/cpufreq/policy{cpu}"
            self.put(f"{policy}/related_cpus", str(cpu))
            self.put(f"{policy}/scaling_governor", "powersave")
            self.put(f"{policy}/scaling_available_governors", "performance powersave")
            self.put(f"{policy}/energy_performance_preference", "balance_performance")
            self.put(f"{policy}/energy_performance_available_preferences", "default performance power")
            if (major, minor) >= (6, 12):
                self.put(f"/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime", "50000000")
        for name in ("cpumask", "writeback/cpumask"):
            self.put(f"/sys/devices/virtual/workqueue/{name}", mask)
        thp = "/sys/kernel/mm/transparent_hugepage"
        self.put(f"{thp}/enabled", "[always] madvise never")
        self.put(f"{thp}/defrag", "[always] defer defer+madvise madvise never")
        self.put(f"{thp}/khugepaged/defrag", "1")
        self.put("/sys/kernel/mm/ksm/run", "1")
        self.put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
        for queue in range(4):
            base = "/sys/class/net/eth1/queues"
            self.put(f"{base}/rx-{queue}/rps_cpus", mask)
            self.put(f"{base}/rx-{queue}/rps_flow_cnt", "0")
            self.put(f"{base}/tx-{queue}/xps_cpus", kernel_mask(1 << queue))
        self.put("/sys/class/net/eth1/napi_defer_hard_irqs", "0")
        self.put("/sys/class/net/eth1/gro_flush_timeout", "0")
        self.put("/sys/class/net/eth0/queues/rx-0/rps_cpus", mask)
        nic = self.fake / "nic" / "eth1"
        (nic / "rules").mkdir(parents=True)
        for name, value in {"adaptive-rx": "on", "rx-usecs": "50", "rx-ring": "512", "ntuple": "off"}.items():
            (nic / name).write_text(f"{value}\n")
        # Four zero bytes: what a holder writes, so that holding leaves no trace in the tree.
        (self.root / "dev").mkdir()
        (self.root / "dev/cpu_dma_latency").write_bytes(b"\0\0\0\0")
        if self.cgroup == 2:
            self.put("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids")
            self.put("/sys/fs/cgroup/cgroup.subtree_control", "cpu memory pids")
        elif self.cgroup == 1:
            self.put("/sys/fs/cgroup/cpuset/cpuset.cpus", online)
        (self.root / "etc/default").mkdir(parents=True)
        if self.irqbalance:
            self.put("/proc/321/comm", "irqbalance")
            self.put(
                "/etc/default/irqbalance", '# Of the distribution.\nENABLED="1"\n#IRQBALANCE_ARGS=', 0o640
            )
            (self.fake / "irqbalance-moves").write_text("0\n")
            (self.root / "run/systemd/system").mkdir(parents=True)

    def env_file(self, text: str) -> Path:
        path = self.folder / "host.env"
        path.write_text(text)
        return path

    def snapshot(self) -> dict[str, tuple[int, bytes | None]]:
        """Every file and folder with its mode and bytes, the interfaces' settings with them. Where an
        interrupt arrives is left out: only its mask can be set."""
        found: dict[str, tuple[int, bytes | None]] = {}
        for base in (self.root, self.fake / "nic"):
            for path in sorted(base.rglob("*")):
                if path.name == "effective_affinity_list":
                    continue
                found[str(path.relative_to(self.folder))] = (
                    path.stat().st_mode,
                    path.read_bytes() if path.is_file() else None,
                )
        return found

    def writes(self) -> list[str]:
        """What was asked of the fake kernel so far, in order."""
        path = self.fake / "writes"
        return path.read_text().splitlines() if path.exists() else []

    def run(
        self,
        script: str,
        *arguments: str,
        kill_at: int | None = None,
        stdout: int = subprocess.PIPE,
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        real = os.environ["PATH"]
        environment = {
            "PATH": f"{self.bin}:{real}",
            "REAL_PATH": real,
            "FAKE": str(self.fake),
            "TICKWIRE_TUNING_ROOT": str(self.root),
            **more,
        }
        if kill_at is not None:
            environment |= {
                "BASH_ENV": str(self.folder / "killer.sh"),
                "KILL_AT": str(kill_at),
                "KILL_SCRIPT": script,
            }
        state = ["--state", str(self.state)] if script in ("apply.sh", "revert.sh") else []
        return subprocess.run(
            ["bash", str(SCRIPTS / script), *arguments, *state],
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            start_new_session=True,
        )

    def apply(self, env: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.run("apply.sh", "--env", str(self.env_file(env)), "--apply", **more)

    def plan(self, env: str) -> subprocess.CompletedProcess[str]:
        return self.run("apply.sh", "--env", str(self.env_file(env)))

    def revert(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("revert.sh", *arguments)

    def holders(self) -> list[int]:
        """Processes that hold this tree's /dev/cpu_dma_latency open."""
        device = self.root / "dev/cpu_dma_latency"
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if any(os.readlink(fd) == str(device) for fd in (entry / "fd").iterdir()):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def end_holders(self) -> None:
        for pid in self.holders():
            os.kill(pid, signal.SIGKILL)
