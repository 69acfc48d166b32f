"""What tests all over the tree need: a real S3 server, a browser, and the data beside the checkout."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import s3fs
from hypothesis import settings

from tests.s3 import S3, running_server

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
SHARED = Path(__file__).resolve().parents[2] / "shared"
SECRET = "s3cr3t-of-a-signature"
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


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


@pytest.fixture
def leaky_site() -> Iterator[str]:
    """A web server whose pictures lead to signed locations, which refuse: /PICTURE.jpg."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            signed = "Signature=" in self.path
            self.send_response(403 if signed else 302)
            self.send_header("Location", f"{self.path}?X-Amz-Signature={SECRET}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

        do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium that keeps what pages write to its console."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            yield session
        finally:
            session.quit()
