"""The launcher's promises, over a fake server: ready means ready, and nothing outlives `stop`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from testbed import install
from testbed.launch import ServerFailedError, SglangServer, living

# Named as the launcher starts it, `python -m sglang.launch_server`; it serves /health and nothing
# else, and like SGLang it has a child that does not end of itself.
FAKE_SERVER = """
import http.server, os, signal, subprocess, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
if "--die" in sys.argv:
    sys.exit("no such model")
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
print("arguments", *sys.argv[1:], flush=True)
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""


@pytest.fixture
def fake_path(tmp_path: Path) -> dict[str, str]:
    package = tmp_path / "sglang"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "launch_server.py").write_text(FAKE_SERVER)
    return {"PYTHONPATH": str(tmp_path)}


def fake_server(fake_path: dict[str, str], *extra_args: str) -> SglangServer:
    log_path = Path(fake_path["PYTHONPATH"]) / "log" / "server.log"
    return SglangServer(
        Path(sys.executable),
        Path("a-model"),
        draft=Path("a-draft"),
        algorithm="EAGLE",
        extra_args=extra_args,
        extra_env=fake_path,
        log_path=log_path,
    )


def test_server_is_ready_inside_and_gone_outside(fake_path: dict[str, str]) -> None:
    server = fake_server(fake_path, "--dtype", "bfloat16")
    with server:
        assert server.is_ready()
        group = server.pid
        assert len(list(living(group))) == 2
        words = server.log_path.read_text().splitlines()[0].split()
    assert words[words.index("--speculative-algorithm") + 1] == "EAGLE"
    assert words[words.index("--speculative-draft-model-path") + 1] == "a-draft"
    assert words[-2:] == ["--dtype", "bfloat16"]  # what is asked for comes last and wins
    assert not list(living(group))
    server.stop()  # a second time does nothing


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whole_group_ends_on_an_exception(
    fake_path: dict[str, str], error: type[BaseException]
) -> None:
    groups = []

    def use_server() -> None:
        with fake_server(fake_path) as server:
            groups.append(server.pid)
            raise error

    with pytest.raises(error) as raised:
        use_server()
    assert "arguments --model-path" in raised.value.__notes__[0]
    assert len(groups) == 1
    assert not list(living(groups[0]))


def test_server_that_ignores_the_polite_signal_is_killed(fake_path: dict[str, str]) -> None:
    with fake_server(fake_path, "--stubborn") as server:
        group = server.pid
        server.stop(grace_s=0.1)
        assert not list(living(group))


def test_death_while_starting_is_told_with_the_log(fake_path: dict[str, str]) -> None:
    server = fake_server(fake_path, "--die")
    with pytest.raises(ServerFailedError, match=r"(?s)exited \(status 1\).*no such model"):
        server.__enter__()
    with pytest.raises(ServerFailedError, match="not started"):
        _ = server.pid


def test_installer_names_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.install.sys.version_info", (3, 10, 1))
    with pytest.raises(install.InstallError, match=r"needs Python 3\.11 to 3\.13"):
        install.check_machine()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(install.InstallError, match=r"no C\+\+ compiler"):
        install.check_machine()


def test_unfinished_environment_is_not_taken_for_a_ready_one(tmp_path: Path) -> None:
    assert install.read_stamp(tmp_path) == {}
    install.stamp_path(tmp_path).write_text('{"lock": "1"}')
    assert install.read_stamp(tmp_path) == {}  # its interpreter is missing
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert install.read_stamp(tmp_path) == {"lock": "1"}
    install.stamp_path(tmp_path).write_text('{"lock": ')
    assert install.read_stamp(tmp_path) == {}
