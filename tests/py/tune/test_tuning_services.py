"""boot-line.sh, services.sh and `tickwire tune`: what they print, write and take away again."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuning_host import SCRIPTS, Host

from tickwire import cli, tune
from tickwire.errors import SetupError

ENV = "ENGINE_CPUS=5-7\nHUGE_PAGES_2M=64\n"
PARTITION = "ENGINE_CPUS=5-7\nISOLATE=partition\nCONTROL_CPUS=4\nREALTIME=yes\n"
UNITS = "etc/systemd/system"
LIBRARY = "usr/local/lib/tickwire/tuning"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "host")
    yield host
    host.end_holders()


def boot_line(host: Host, env: str) -> list[str]:
    ended = host.run("boot-line.sh", "--env", str(host.env_file(env)))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def services(host: Host, *arguments: str, env: str = ENV) -> subprocess.CompletedProcess[str]:
    return host.run("services.sh", "--env", str(host.env_file(env)), *arguments)


# -------------------------------------------------------------------------------------------- the boot line


def test_the_boot_line_isolates_the_engine_s_cores(host: Host) -> None:
    assert boot_line(host, ENV)[0] == (
        "isolcpus=managed_irq,domain,5-7 nohz_full=5-7 rcu_nocbs=5-7 irqaffinity=0-4"
        " hugepagesz=2M hugepages=1:64"
    )


def test_the_boot_line_leaves_the_scheduler_to_the_partition(host: Host) -> None:
    assert boot_line(host, PARTITION)[0] == (
        "isolcpus=managed_irq,4-7 nohz_full=5-7 rcu_nocbs=5-7 irqaffinity=0-3"
    )


def test_the_boot_line_has_no_nohz_full_where_the_kernel_lacks_it(host: Host) -> None:
    (host.root / "sys/devices/system/cpu/nohz_full").unlink()
    lines = boot_line(host, ENV)
    assert "nohz_full" not in lines[0]
    assert "# nohz_full is left out: this kernel is built without it." in lines


def test_the_boot_line_warns_of_counts_for_a_node_on_old_kernels(host: Host) -> None:
    host.put("/proc/sys/kernel/osrelease", "5.10.0-28-amd64")
    assert any("older than 5.16" in line for line in boot_line(host, ENV))


def test_the_boot_line_says_when_it_is_in_force(host: Host) -> None:
    words = boot_line(host, ENV)[0]
    said = "# The running kernel was started with all of it."
    assert said not in boot_line(host, ENV)
    host.put("/proc/cmdline", f"root=/dev/vda1 {words} quiet")
    assert said in boot_line(host, ENV)


@pytest.mark.parametrize(
    ("release", "commands"),
    [
        ("ID=debian", ["update-grub"]),
        ('ID=ubuntu\nID_LIKE="debian"', ["update-grub"]),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', ["grubby --update-kernel=ALL --args='isolcpus="]),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', ["grub2-mkconfig -o /boot/grub2/grub.cfg"]),
        ("ID=arch", ["grub-mkconfig -o /boot/grub/grub.cfg"]),
        ("ID=other", []),
    ],
)
def test_the_boot_line_is_installed_by_the_distribution_s_own_means(
    host: Host, release: str, commands: list[str]
) -> None:
    host.put("/etc/os-release", release)
    before = host.snapshot()
    lines = boot_line(host, ENV)
    assert host.snapshot() == before
    for command in commands:
        assert any(line.startswith(command) for line in lines), lines
    text = "\n".join(lines)
    assert "To install" in text
    assert "To remove" in text


def test_the_debian_command_writes_what_it_should(host: Host, tmp_path: Path) -> None:
    host.put("/etc/os-release", "ID=debian")
    lines = boot_line(host, ENV)
    (command,) = [line for line in lines if line.startswith("printf")]
    target = tmp_path / "90-tickwire.cfg"
    subprocess.run(
        ["bash", "-c", command.replace("/etc/default/grub.d/90-tickwire.cfg", str(target))], check=True
    )
    shown = subprocess.run(
        ["sh", "-c", f'GRUB_CMDLINE_LINUX_DEFAULT=quiet; . {target}; echo "$GRUB_CMDLINE_LINUX_DEFAULT"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"quiet {lines[0]}\n"


def test_the_boot_line_refuses_cores_that_cannot_be_given_away(host: Host) -> None:
    ended = host.run("boot-line.sh", "--env", str(host.env_file("ENGINE_CPUS=0\n")))
    assert ended.returncode == 2
    assert "CPU 0" in ended.stderr


# --------------------------------------------------------------------------------------------- the services


def unit(host: Host, name: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((host.root / UNITS / name).read_text())
    return {section: dict(parser[section]) for section in parser.sections()}


def test_the_units_say_what_host_env_says(host: Host) -> None:
    env = ENV + "SERVICE_USER=quant\nSERVICE_COMMAND=/srv/tw/bin/tickwire\nSERVICE_CONFIG=/srv/tw/p.toml\n"
    assert services(host, "--install", env=env).returncode == 0
    engine = unit(host, "tickwire.service")
    service = engine["Service"]
    wanted = {
        "User": "quant",
        "Slice": "tickwire.slice",
        "ExecStart": "/srv/tw/bin/tickwire run /srv/tw/p.toml",
        "CPUAffinity": "0-4",
        "NUMAPolicy": "bind",
        "NUMAMask": "1",
        "LimitMEMLOCK": "infinity",
        "OOMScoreAdjust": "-900",
        "Restart": "on-failure",
    }
    assert {key: service[key] for key in wanted} == wanted
    assert "LimitRTPRIO" not in service
    assert engine["Unit"]["Requires"] == "tickwire-tuning.service"
    tuning = unit(host, "tickwire-tuning.service")["Service"]
    assert tuning["ExecStart"].startswith("/bin/bash /usr/local/lib/tickwire/tuning/apply.sh --env /etc/")
    assert tuning["ExecStop"] == "/bin/bash /usr/local/lib/tickwire/tuning/revert.sh"
    assert "AllowedCPUs" not in unit(host, "tickwire.slice")["Slice"]
    # What root runs lies where only root writes, and is what we have here.
    for name in ("apply.sh", "revert.sh", "lib/common.sh", "lib/journal.sh"):
        assert (host.root / LIBRARY / name).read_bytes() == (SCRIPTS / name).read_bytes()
    assert (host.root / "etc/tickwire/host.env").read_text() == env
    assert "systemctl daemon-reload" in host.writes()
    assert not [write for write in host.writes() if "enable" in write or "start" in write]


# Of both units: what no service of ours may do.
CLOSED = {
    "NoNewPrivileges": "yes",
    "PrivateTmp": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "SystemCallArchitectures": "native",
}


def test_the_services_may_do_what_they_need_and_no_more(host: Host) -> None:
    assert services(host, "--install").returncode == 0
    engine = unit(host, "tickwire.service")["Service"]
    tuning = unit(host, "tickwire-tuning.service")["Service"]
    assert engine.items() >= CLOSED.items()
    assert tuning.items() >= CLOSED.items()
    assert engine["CapabilityBoundingSet"] == engine["AmbientCapabilities"] == ""
    assert engine["SystemCallFilter"] == "@system-service seccomp"
    assert engine["SystemCallErrorNumber"] == "EPERM"
    assert set(engine["RestrictAddressFamilies"].split()) == {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"}
    assert (engine["ProtectSystem"], engine["ProtectHome"]) == ("full", "read-only")
    assert engine["DevicePolicy"] == "closed"
    assert (tuning["ProtectSystem"], tuning["ProtectHome"]) == ("yes", "yes")
    # Each exception with its reason: what a service of this kind would have, and ours has not, is named.
    text = (host.root / UNITS / "tickwire.service").read_text()
    for left_out in (
        "PrivateDevices",
        "PrivateNetwork",
        "IPAddressDeny",
        "PrivateUsers",
        "ProcSubset",
        "RemoveIPC",
        "MemoryDenyWriteExecute",
    ):
        assert left_out not in engine
        assert any(left_out in line for line in text.splitlines() if line.startswith("#")), left_out


def test_a_thread_that_may_be_realtime_is_not_forbidden_to_be(host: Host) -> None:
    assert services(host, "--install", env=PARTITION).returncode == 0
    service = unit(host, "tickwire.service")["Service"]
    assert "RestrictRealtime" not in service
    assert service["LimitRTPRIO"] == "50"


def test_the_units_of_a_partition(host: Host) -> None:
    assert services(host, "--install", env=PARTITION).returncode == 0
    assert unit(host, "tickwire.slice")["Slice"]["AllowedCPUs"] == "4-7"
    assert unit(host, "tickwire.service")["Service"]["CPUAffinity"] == "4"
    assert unit(host, "tickwire.service")["Service"]["LimitRTPRIO"] == "50"
    text = (host.root / UNITS / "tickwire-tuning.service").read_text().splitlines()
    assert {"Wants=tickwire.slice", "After=tickwire.slice"} <= set(text)


def test_the_installed_scripts_tune_and_revert(host: Host) -> None:
    assert services(host, "--install").returncode == 0
    before = host.snapshot()
    environment = {**os.environ, "PATH": f"{host.bin}:{os.environ['PATH']}"}
    environment |= {"REAL_PATH": os.environ["PATH"], "FAKE": str(host.fake)}
    environment["TICKWIRE_TUNING_ROOT"] = str(host.root)
    for words in (["apply.sh", "--apply"], ["revert.sh"]):
        ended = subprocess.run(
            ["bash", str(host.root / LIBRARY / words[0]), *words[1:], "--state", str(host.state)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert host.snapshot() == before


@pytest.mark.parametrize("with_", ["systemd", "tuned"])
def test_remove_leaves_what_was_there_before_install(host: Host, with_: str) -> None:
    (host.root / UNITS).mkdir(parents=True)
    (host.root / "usr/local/lib").mkdir(parents=True)
    (host.root / "etc/tuned").mkdir(parents=True)
    before = host.snapshot()
    assert services(host, "--with", with_, "--install").returncode == 0
    assert services(host, "--with", with_, "--install").returncode == 0  # Again: the same.
    removed = services(host, "--remove")
    assert removed.returncode == 0, removed.stderr
    assert host.snapshot() == before


def test_printing_writes_nothing(host: Host) -> None:
    before = host.snapshot()
    printed = services(host)
    assert printed.returncode == 0
    assert "# ---- /etc/systemd/system/tickwire.service" in printed.stdout
    assert host.snapshot() == before


def test_a_tuned_profile_calls_the_same_scripts(host: Host, tmp_path: Path) -> None:
    (host.root / "etc/tuned/profiles").mkdir(parents=True)
    assert services(host, "--with", "tuned", "--install").returncode == 0
    profile = host.root / "etc/tuned/profiles/tickwire"
    parser = configparser.RawConfigParser()
    parser.read_string((profile / "tuned.conf").read_text())
    assert parser["script"]["script"] == "${i:PROFILE_DIR}/tickwire.sh"
    script = profile / "tickwire.sh"
    assert os.access(script, os.X_OK)
    calls = tmp_path / "calls"
    for verb, called in (("start", "apply.sh"), ("stop", "revert.sh"), ("verify", "")):
        text = script.read_text().replace("/bin/bash /usr", "echo /usr")
        calls.write_text(text)
        shown = subprocess.run(["bash", calls, verb], capture_output=True, text=True, check=True).stdout
        assert (called in shown) if called else shown == ""
    assert not (host.root / UNITS / "tickwire-tuning.service").exists()
    assert unit(host, "tickwire.service")["Unit"]["Requires"] == "tuned.service"
    # Our own profile is no obstacle to our own scripts.
    host.put("/etc/tuned/active_profile", "tickwire")
    host.put("/proc/777/comm", "tuned")
    assert host.plan(ENV).returncode == 0
    assert services(host, "--remove").returncode == 2


def test_a_foreign_file_is_not_overwritten(host: Host) -> None:
    host.put(f"/{UNITS}/tickwire.service", "[Service]\nExecStart=/bin/true")
    before = host.snapshot()
    ended = services(host, "--install")
    assert ended.returncode == 2
    assert "tickwire.service is there and not as we wrote it" in ended.stderr
    assert host.snapshot() == before


def test_an_edited_file_is_not_removed_unless_asked(host: Host) -> None:
    assert services(host, "--install").returncode == 0
    edited = host.root / UNITS / "tickwire.service"
    edited.write_text(edited.read_text() + "\n# Mine.\n")
    removed = services(host, "--remove")
    assert removed.returncode == 3
    assert "was edited and stays" in removed.stderr
    assert edited.exists()
    assert not (host.root / UNITS / "tickwire.slice").exists()
    assert services(host, "--remove", "--force").returncode == 0
    assert not edited.exists()
    assert not (host.root / LIBRARY).exists()


def test_what_runs_is_not_removed(host: Host) -> None:
    assert services(host, "--install").returncode == 0
    host.fault("active", "tickwire-tuning.service")
    ended = services(host, "--remove")
    assert ended.returncode == 2
    assert "systemctl disable --now" in ended.stderr
    assert (host.root / UNITS / "tickwire.service").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("env", [ENV, PARTITION])
def test_systemd_understands_the_units(host: Host, env: str) -> None:
    assert services(host, "--install", env=env + "SERVICE_COMMAND=/bin/true\n").returncode == 0
    units = sorted((host.root / UNITS).iterdir())
    assert len(units) == 3
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    ours = [line for line in ended.stderr.splitlines() if "tickwire" in line]
    assert not [line for line in ours if "Unknown" in line or "Failed to parse" in line], ended.stderr
    assert not [line for line in ours if "nvalid" in line or "ignoring" in line], ended.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_the_engine_little_exposed(host: Host) -> None:
    assert services(host, "--install", env=ENV + "SERVICE_COMMAND=/bin/true\n").returncode == 0
    ended = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=100",
            str(host.root / UNITS / "tickwire.service"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"Overall exposure level for tickwire.service: ([0-9.]+)", ended.stdout)
    if exposure is None:
        pytest.skip(f"this systemd-analyze looks at no file: {ended.stderr.strip()}")
    # Of 10; 9.2 is a service that nobody has closed. What is left are feeds, devices and the users of others.
    assert float(exposure[1]) <= 2.5, ended.stdout


# --------------------------------------------------------------------------------------------- tickwire tune


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tickwire", "tune", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_plans_applies_and_reverts(
    host: Host, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FAKE", host.fake), ("TICKWIRE_TUNING_ROOT", host.root)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("REAL_PATH", os.environ["PATH"])
    monkeypatch.setenv("PATH", f"{host.bin}:{os.environ['PATH']}")
    env = host.env_file(ENV)
    before = host.snapshot()
    assert command(monkeypatch, "plan", "--env", env) == 0
    assert "writes; --apply does them" in capfd.readouterr().out
    assert command(monkeypatch, "apply", "--env", env, "--state", host.state) == 0
    assert host.get("/proc/sys/vm/swappiness") == "10"
    host.put("/proc/sys/vm/swappiness", "33")
    assert command(monkeypatch, "revert", "--state", host.state) == 3
    assert command(monkeypatch, "revert", "--state", host.state, "--force") == 0
    assert host.snapshot() == before
    assert command(monkeypatch, "apply", "--env", host.env_file("ENGINE_CPUS=0\n")) == 2
    assert "CPU 0" in capfd.readouterr().err
    host.env_file(ENV)
    assert command(monkeypatch, "boot-line", "--env", env) == 0
    assert capfd.readouterr().out.startswith("isolcpus=managed_irq,domain,5-7 ")
    assert command(monkeypatch, "services", "--env", env, "--with", "tuned") == 0
    assert "# ---- /etc/tuned/tickwire/tuned.conf" in capfd.readouterr().out
    assert command(monkeypatch, "services", "--env", env, "--install", "--remove") == 2


def test_the_example_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "example")
    assert capsys.readouterr().out == (SCRIPTS / "host.env.example").read_text()


def test_ctrl_c_puts_back_and_is_waited_for(host: Host) -> None:
    """The interrupt goes to the whole process group, as from a terminal."""
    before = host.snapshot()
    # The write at which it comes.
    (host.bin / "tee").write_text(
        (host.bin / "tee")
        .read_text()
        .replace(
            "#!/usr/bin/env bash\n",
            '#!/usr/bin/env bash\ntrap "" INT\n'
            'case "${@: -1}" in */ksm/run) : >"$FAKE/now"; sleep 0.5 ;; esac\n',
            1,
        )
    )
    program = "import sys; from tickwire import tune; sys.exit(tune.run('apply.sh', sys.argv[1:]))"
    environment = {**os.environ, "PATH": f"{host.bin}:{os.environ['PATH']}"}
    environment |= {"REAL_PATH": os.environ["PATH"], "FAKE": str(host.fake)}
    environment["TICKWIRE_TUNING_ROOT"] = str(host.root)
    arguments = ["--env", str(host.env_file(ENV)), "--state", str(host.state), "--apply"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60.0
        while not (host.fake / "now").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "interrupted" in err
    assert "the host is as it was before" in err
    assert host.snapshot() == before


def test_the_scripts_are_found_in_a_package_and_beside_a_source_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tune.scripts() == SCRIPTS
    package = tmp_path / "site-packages" / "tickwire"
    package.mkdir(parents=True)
    monkeypatch.setattr(tune, "__file__", str(package / "tune.py"))
    with pytest.raises(SetupError, match=r"not installed: expected apply\.sh in .*tickwire/tuning or "):
        tune.scripts()
    shutil.copytree(SCRIPTS, package / "tuning")
    assert tune.scripts() == package / "tuning"
