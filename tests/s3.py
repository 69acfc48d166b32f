"""A real S3 server (SeaweedFS) for the tests that ask for one."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import botocore.session
import pytest
import s3fs
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

REGION = "us-east-1"
BUCKET = "densemask"
READY_SECONDS = 60
PARTS = ("master", "volume", "filer", "s3")
GRPC_ABOVE = 10_000
SWITCHED_OFF = ("-master.telemetry=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0")


class Identity(NamedTuple):
    """A key pair that the server knows."""

    access_key: str
    secret_key: str


WRITER = Identity("writer-access-key", "writer-secret-key")
READER = Identity("reader-access-key", "reader-secret-key")
STRANGER = Identity("stranger-access-key", "stranger-secret-key")


class S3(NamedTuple):
    """The running server; ``url`` is its bucket, and plain ``s3://`` URLs lead to it while it runs."""

    endpoint: str
    url: str

    def environment(self, identity: Identity = WRITER) -> dict[str, str]:
        """The variables that make s3fs, botocore and pyarrow speak to the server."""
        return {
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        }

    @contextmanager
    def acting_as(self, identity: Identity | None) -> Iterator[None]:
        """This process speaks to the server as somebody else, or without any credentials."""
        with pytest.MonkeyPatch.context() as environment:
            for name, value in self.environment(identity or WRITER).items():
                environment.setenv(name, value)
            if identity is None:
                for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                    environment.delenv(name)
                for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
                    environment.setenv(name, os.devnull)
                environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
            s3fs.S3FileSystem.clear_instance_cache()
            try:
                yield
            finally:
                s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def running_server(folder: Path) -> Iterator[S3]:
    """A server with an empty bucket, its data in ``folder``; killed with all its children at the end."""
    ports = _free_ports()
    server = S3(f"http://127.0.0.1:{ports['s3']}", f"s3://{BUCKET}")
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps(_identities()))
    command = [
        str(Path(sys.executable).with_name("weed")), f"-logdir={folder}", "server", "-filer", "-s3",
        f"-s3.config={folder / 's3.json'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}",
        "-volume.max=50", "-master.volumeSizeLimitMB=64", *SWITCHED_OFF,
        *(f"-{part}.port={port}" for part, port in ports.items()),
    ]  # fmt: skip
    with open(folder / "weed.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _create_bucket(server, process, folder / "weed.log")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _identities() -> dict[str, Any]:
    rights = {WRITER: ["Admin"], READER: ["Read", "List"]}
    return {
        "identities": [
            {
                "name": identity.access_key,
                "credentials": [{"accessKey": identity.access_key, "secretKey": identity.secret_key}],
                "actions": actions,
            }
            for identity, actions in rights.items()
        ]
    }


def _create_bucket(server: S3, process: subprocess.Popen[bytes], log: Path) -> None:
    """Creates the bucket and writes into it, as soon as the server lets it: its parts come up one after another."""
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=REGION,
        aws_access_key_id=WRITER.access_key,
        aws_secret_access_key=WRITER.secret_key,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key=".ready", Body=b"ready")
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"SeaweedFS is not ready: {error}\n{tail}") from error
            time.sleep(0.2)


def _free_ports() -> dict[str, int]:
    """A free port for each part whose gRPC port is free too, below the range that clients draw from."""
    candidates = (
        port for port in random.sample(range(11_000, 22_000), 200) if _free(port) and _free(port + GRPC_ABOVE)
    )
    return dict(zip(PARTS, candidates, strict=False))


def _free(port: int) -> bool:
    with socket.socket() as listener:
        return listener.connect_ex(("127.0.0.1", port)) != 0
