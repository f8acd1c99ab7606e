"""Servers for the tests: a nats-server with JetStream, and a Postgres. Both are stopped at the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# As nats/accounts.conf has it: JetStream belongs to the account BOXOFFICE, and a service may have an account of its own. In
# BOXOFFICE there are users with all rights, one whose acknowledgements the server drops, and one that may not make consumers.
NATS_CONFIG = """
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{folder}", max_file_store: 16G }} # the stream EVENTS reserves 4 GB, which the disk need not have
accounts {{
  BOXOFFICE {{
    jetstream: enabled
    users: [
      {{ user: all, password: all }}
      {{ user: mute, password: mute, permissions: {{ publish: {{ deny: ["$JS.ACK.>"] }} }} }}
      {{
        user: narrow, password: narrow
        permissions: {{
          publish: {{ allow: [
            "$JS.API.INFO", "$JS.API.STREAM.INFO.STEPS", "$JS.API.CONSUMER.INFO.STEPS.*"
            "$JS.API.CONSUMER.MSG.NEXT.STEPS.*", "$JS.ACK.STEPS.>", "sagas.reply.printer"
          ] }}
          subscribe: {{ allow: ["_INBOX.>", "$SRV.>", "fences.printer.complete"] }}
          allow_responses: {{ max: 100, expires: "1m" }}
        }}
      }}
    ]
    exports: [
      {{ service: "$JS.API.INFO" }}
      {{ service: "$JS.API.STREAM.INFO.*" }}
      {{ service: "$JS.API.CONSUMER.INFO.*.*" }}
      {{ service: "$JS.API.CONSUMER.MSG.NEXT.*.*", response_type: stream }}
      {{ service: "$JS.ACK.*.*.>" }}
      {{ service: "sagas.reply.*" }}
    ]
    imports: [
      {{ service: {{ account: PRINTER, subject: "$SRV.>" }} }}
      {{ service: {{ account: PRINTER, subject: "fences.printer.complete" }} }}
    ]
  }}
  PRINTER {{
    users: [{{ user: printer, password: printer }}]
    exports: [
      {{ service: "$SRV.>", response_type: stream }}
      {{ service: "fences.printer.complete" }}
    ]
    imports: [
      {{ service: {{ account: BOXOFFICE, subject: "$JS.API.INFO" }}, to: "$JS.boxoffice.API.INFO" }}
      {{ service: {{ account: BOXOFFICE, subject: "$JS.API.STREAM.INFO.STEPS" }}, to: "$JS.boxoffice.API.STREAM.INFO.STEPS" }}
      {imports}
      {{ service: {{ account: BOXOFFICE, subject: "sagas.reply.printer" }} }}
    ]
  }}
}}
"""
OF_A_COMMAND = """
      {{ service: {{ account: BOXOFFICE, subject: "$JS.API.CONSUMER.INFO.STEPS.{name}" }}, to: "$JS.boxoffice.API.CONSUMER.INFO.STEPS.{name}" }}
      {{ service: {{ account: BOXOFFICE, subject: "$JS.API.CONSUMER.MSG.NEXT.STEPS.{name}" }}, to: "$JS.boxoffice.API.CONSUMER.MSG.NEXT.STEPS.{name}" }}
      {{ service: {{ account: BOXOFFICE, subject: "$JS.ACK.STEPS.{name}.>" }} }}"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _until_listening(port: int, process: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args[0]} does not listen:\n{log.read_text(errors='replace')[-3000:]}")


class Nats:
    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        config = folder / "nats.conf"
        imports = "".join(OF_A_COMMAND.format(name=name) for name in ("printer-print", "printer-shred"))
        config.write_text(NATS_CONFIG.format(port=self.port, folder=folder / "jetstream", imports=imports))
        program = os.environ.get("NATS_SERVER") or shutil.which("nats-server")
        if not program:
            raise RuntimeError("nats-server is missing: set NATS_SERVER, or put it on the path")
        self.command, self.log = [program, "-c", config], folder / "nats.log"
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        _until_listening(self.port, self.process, self.log)

    def url(self, user: str = "all") -> str:
        return f"nats://{user}:{user}@127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Postgres:
    """A cluster in a folder of its own. Postgres does not run as root, so it gets another user there."""

    def __init__(self, folder: Path):
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        found = shutil.which("initdb")
        if not programs and not found:
            raise RuntimeError("Postgres is missing")
        self.bin = programs[-1] if programs else Path(os.path.realpath(found)).parent
        self.data, self.port, self.log = folder / "postgres", free_port(), folder / "postgres.log"
        self.as_user = {}
        if os.getuid() == 0:
            name = "postgres" if subprocess.run(["id", "postgres"], capture_output=True).returncode == 0 else "nobody"
            self.as_user = {"user": name, "extra_groups": []}
            folder.chmod(0o711)
        self.data.mkdir()
        if self.as_user:
            shutil.chown(self.data, self.as_user["user"])
        initdb = ["initdb", "-D", self.data, "-U", "test", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync"]
        subprocess.run([self.bin / initdb[0], *initdb[1:]], check=True, capture_output=True, cwd="/", **self.as_user)
        self.start()

    def start(self) -> None:
        options = ["-D", self.data, "-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "fsync=off", "-c", "max_connections=200"]
        with open(self.log, "ab") as log:
            program = self.bin / "postgres"
            self.process = subprocess.Popen([program, *options], stdout=log, stderr=log, cwd="/", **self.as_user)
        _until_listening(self.port, self.process, self.log)
        # It listens before it is ready.
        ready = [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "test", "-d", "postgres"]
        while self.process.poll() is None and subprocess.run(ready).returncode != 0:
            time.sleep(0.05)

    def url(self, database: str = "postgres") -> str:
        return f"postgres://test@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # a fast shutdown: sessions are ended
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
