"""What tests all over the tree need: a real S3 server, and the data beside the checkout."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import s3fs
from hypothesis import settings

from tests.s3 import S3, running_server

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A running S3 server; plain ``s3://`` URLs lead to it, here and in child processes."""
    with running_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as environment:
        for name, value in server.environment().items():
            environment.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # a file system keeps the credentials that it began with
        yield server


@pytest.fixture(scope="session")
def shared() -> Path:
    """``../shared``, where the data sets and weights for tests lie."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs ../shared/data, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def voc_root(shared: Path) -> Path:
    """PASCAL VOC in its own layout."""
    return shared / "data" / "voc"


@pytest.fixture
def bucket_folder(s3: S3) -> str:
    """A prefix of the bucket that only this test uses."""
    return f"{s3.url}/{uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> str:
    """An empty place for objects, once in a local folder and once on S3."""
    if request.param == "local":
        return str(request.getfixturevalue("tmp_path") / "store")
    return str(request.getfixturevalue("bucket_folder"))
