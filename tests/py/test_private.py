"""What is this user's alone: folders, sockets, secrets, and what a run leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from pathlib import Path

import pytest
from configuring import MINIMAL, load, multicast
from fake_core import make_rows
from fake_rows import layout_of
from needs import compiled

from tickwire.config import Config
from tickwire.errors import ConfigError, Error
from tickwire.launch import resolve
from tickwire.private import check_socket, private_opener, read_secret
from tickwire.runtime import control
from tickwire.stat_file import default_directories, default_directory

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is another user's")
NOBODY = 65534


def test_a_secret_is_read_from_a_file_of_its_user_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"two\nlines\n")
    for mode in (0o600, 0o400):
        path.chmod(mode)
        assert read_secret(path) == b"two\nlines\n"
    for mode in (0o604, 0o640, 0o660, 0o601, 0o620):
        path.chmod(mode)
        with pytest.raises(ValueError, match=f"only its user can read, found mode {mode:04o}: chmod 600"):
            read_secret(path)
    with pytest.raises(ValueError, match="expected a regular file"):
        read_secret(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ValueError, match="expected a regular file"):
        read_secret(tmp_path / "pipe")  # And does not wait for a writer.


@root
def test_a_secret_of_another_user_s_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ValueError, match=f"expected a file of this user's, found one of user {NOBODY}"):
        read_secret(path)


def test_glimpse_credentials_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "glimpse.login"
    path.write_text("user\ns3cret\n")
    path.chmod(0o644)
    config = multicast('glimpse = "127.0.0.1:18000"', 'credentials = "glimpse.login"', base=tmp_path)
    with pytest.raises(
        ConfigError, match=r"credentials: expected a file that only its user can read"
    ) as error:
        resolve(config)
    assert "s3cret" not in str(error.value)
    path.chmod(0o600)
    (feed,) = resolve(config)["feeds"]
    assert (feed["multicast"]["username"], feed["multicast"]["password"]) == ("user", "s3cret")


@pytest.mark.parametrize("key", ["url", "trades_url", "rest_url"])
@pytest.mark.parametrize("user", ["desk:s3cret@", "s3cret@", ":s3cret@"])
def test_a_password_in_a_url_is_refused_and_not_shown(key: str, user: str) -> None:
    scheme = "https" if key == "rest_url" else "wss"
    for line in (f'{key} = "{scheme}://{user}host.example/x"', f'{key}l = "{scheme}://{user}host.example/x"'):
        with pytest.raises(ConfigError) as error:
            load(MINIMAL.replace('source = "file"', line))
        assert "s3cret" not in str(error.value)
    with pytest.raises(ConfigError, match=rf"feeds\[0\].{key}: expected a URL without a user name"):
        load(MINIMAL.replace('source = "file"', f'{key} = "{scheme}://{user}host.example/x"'))


def test_statistics_go_elsewhere_where_their_folder_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    first = tmp_path / "tickwire"
    assert default_directory() == first
    assert first not in default_directories()
    first.mkdir(mode=0o700)
    assert default_directory() == first == default_directories()[0]
    first.chmod(0o770)
    second = default_directory()
    assert str(second).startswith(f"/dev/shm/tickwire-{os.geteuid()}")
    first.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    first.symlink_to(tmp_path / "elsewhere")
    assert default_directory() == second, "a link may lead somewhere else tomorrow"
    assert first not in default_directories()
    first.unlink()
    first.write_text("")
    assert default_directory() == second


@root
def test_another_user_s_folder_of_our_name_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "tickwire").mkdir(mode=0o700)
    os.chown(tmp_path / "tickwire", NOBODY, NOBODY)
    assert str(default_directory()).startswith("/dev/shm/tickwire-0")


@compiled
def test_the_engine_and_its_readers_agree_on_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tickwire._core as core

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    config = load(MINIMAL.replace('source = "file"', 'url = "ws://127.0.0.1:1"'))
    for mode in (0o700, 0o777):
        (tmp_path / "tickwire").mkdir(exist_ok=True)
        (tmp_path / "tickwire").chmod(mode)
        engine = core.Engine(resolve(config))
        assert Path(engine.stat_path).parent == default_directory()
        assert (default_directory() == tmp_path / "tickwire") == (mode == 0o700)
        del engine
    named = load(
        MINIMAL.replace('source = "file"', 'url = "ws://127.0.0.1:1"')
        + f'[engine]\nstat_path = "{tmp_path}/tickwire/x.stat"\n'
    )
    with pytest.raises(
        Error, match=r"nobody else can write \(chmod go-w .*, or another place: engine.stat_path"
    ):
        core.Engine(resolve(named))


async def test_commands_go_to_engines_of_this_user_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat_path = tmp_path / "engine.stat"
    path = control.socket_path(stat_path)
    assert check_socket(path) == ""
    path.write_text("")
    with pytest.raises(Error, match="expected a socket, found something else"):
        await control.ask(stat_path, {"command": "swap"})
    path.unlink()
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        link = tmp_path / "link.stat"
        control.socket_path(link).symlink_to(path)
        with pytest.raises(Error, match="expected a socket, found something else"):
            await control.ask(link, {"command": "swap"})
        monkeypatch.setattr(control, "_user_of", lambda _: 12345)
        with pytest.raises(Error, match="expected an engine of this user's, found one of user 12345"):
            await control.ask(stat_path, {"command": "swap"})
        assert asked in ([], [b""]), "nothing was said"
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
            with pytest.raises(Error, match=f"expected a socket of this user's, found one of user {NOBODY}"):
                await control.ask(stat_path, {"command": "swap"})


def test_who_listens_is_asked_of_the_kernel() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert control._user_of(one) == os.geteuid()


def test_what_is_opened_privately_is_no_link_and_nobody_else_s(tmp_path: Path) -> None:
    with open(tmp_path / "a", "w", opener=private_opener) as file:
        file.write("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    (tmp_path / "b").symlink_to(tmp_path / "c")
    with pytest.raises(OSError, match="symbolic link"):
        open(tmp_path / "b", "w", opener=private_opener)  # noqa: SIM115
    assert not (tmp_path / "c").exists()


def test_a_recording_s_description_is_private(tmp_path: Path) -> None:
    from tickwire.recording import Recording

    recording = Recording.begin(tmp_path / "run", Config.from_text(MINIMAL))
    recording.write_start(layout_of(make_rows(1, 2)))
    path = tmp_path / "run" / "run.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["feeds"] == ["binance_usdm"]
    recording.write_end({}, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
