import errno
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest

from pipeline import storage
from pipeline.errors import AbsentError, DeniedError, StorageError
from pipeline.storage import local
from tests.conftest import SECRET
from tests.s3 import READER, S3, STRANGER

AWKWARD = ("plain.bin", "UPPER.BIN", "a b/c.bin", "dir#1/ü.bin", "100%20/x?.bin", "日本/+&=.bin")


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def one_plain_line(error: BaseException) -> bool:
    return "\n" not in str(error) and len(str(error)) < 400


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_put_is_read_back_and_replaced(store: str) -> None:
    for name in AWKWARD:
        location = storage.join(store, name)
        storage.put(location, b"first")
        storage.put(location, name.encode())
        assert storage.read(location) == name.encode()
        assert storage.exists(location)
    assert {entry.location for entry in storage.walk(store)} == {storage.join(store, name) for name in AWKWARD}


def test_a_range_is_read(store: str) -> None:
    location = storage.join(store, "x.bin")
    storage.put(location, b"0123456789")
    assert storage.read(location, 2, 5) == b"234"
    with storage.open_read(location) as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"


def test_a_file_is_put_and_a_folder_removed(store: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    location = storage.join(store, "deep", "object")
    storage.put(location, b"old")
    storage.put_file(location, str(tmp_path / "file"), scratch=storage.join(store, "scratch"))
    storage.put(storage.join(store, "other"), b"x", scratch=storage.join(store, "scratch"))
    assert storage.read(location) == b"content"
    with storage.open_read(location, ahead=False) as file:
        file.seek(3)
        assert file.read(2) == b"te"
    for folder in ("deep", "scratch", "never there"):
        storage.delete(storage.join(store, folder))
    assert [entry.location for entry in storage.walk(store)] == [storage.join(store, "other")]


def test_put_if_absent_leaves_what_is_there(store: str) -> None:
    location = storage.join(store, "x.bin")
    assert storage.put_if_absent(location, b"first") is True
    assert storage.put_if_absent(location, b"second") is False
    assert storage.read(location) == b"first"


def test_of_racing_writers_exactly_one_wins_and_its_data_is_whole(store: str) -> None:
    racers = 8
    barrier = Barrier(racers)

    def write(location: str, writer: int) -> bool:
        data = bytes([writer]) * 200_000
        barrier.wait()
        return storage.put_if_absent(location, data)

    with ThreadPoolExecutor(racers) as pool:
        for race in range(2):
            location = storage.join(store, "masks", "recipe=1", f"shard-{race}.parquet")
            won = list(pool.map(write, [location] * racers, range(racers)))
            assert sum(won) == 1
            assert storage.read(location) == bytes([won.index(True)]) * 200_000
    assert storage.names(storage.join(store, "masks", "recipe=1")) == [f"shard-{race}.parquet" for race in range(2)]


def test_nothing_temporary_is_left(tmp_path: Path) -> None:
    location = str(tmp_path / "out/masks/recipe=1/run=2/shard-00000.parquet")
    storage.put_if_absent(location, b"1")
    storage.put_if_absent(location, b"2")
    storage.put(location, b"3")
    assert names_below(tmp_path) == {"out/masks/recipe=1/run=2/shard-00000.parquet"}


@pytest.mark.parametrize("name", ["masks/recipe=1/run=2/shard-00000.parquet", "plans/recipe=1/000001.claim",
                                  "reports/recipe=1/run=2/summary.parquet", "recipes/0123456789abcdef.json",
                                  "current.json"])  # fmt: skip
@pytest.mark.parametrize("output", ["out", "masks/nightly", "recipes/reports"])
def test_temporary_files_lie_in_the_output_and_nowhere_else(tmp_path: Path, output: str, name: str) -> None:
    storage.put(str(tmp_path / output / name), b"1")
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob(".tmp")] == [Path(output, ".tmp")]


def test_sweep_removes_only_what_is_old(tmp_path: Path) -> None:
    storage.put(str(tmp_path / "current.json"), b"{}")
    old, young = tmp_path / ".tmp/old", tmp_path / ".tmp/young"
    old.write_bytes(b"half")
    young.write_bytes(b"under way")
    past = time.time() - local.STALE_SECONDS - 10
    os.utime(old, (past, past))
    storage.sweep(str(tmp_path))
    assert names_below(tmp_path) == {"current.json", ".tmp/young"}


def test_sweep_passes_over_a_store_and_a_missing_output(tmp_path: Path) -> None:
    storage.sweep("s3://no-such-bucket/out")
    storage.sweep(str(tmp_path / "none"))


@pytest.mark.parametrize("write", [storage.put, storage.put_if_absent])
def test_a_disk_that_takes_no_more_is_one_plain_error(
    tmp_path: Path, write: Callable[[str, bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    location = str(tmp_path / "x.bin")
    with largest_file(1000), pytest.raises(StorageError) as caught:
        write(location, b"x" * 10_000)
    assert str(caught.value) == f"cannot write {location} (2 attempts): {os.strerror(errno.EFBIG)}"
    assert names_below(tmp_path) == set()


def test_a_full_disk_is_one_plain_error_and_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises(StorageError, match=r"\(2 attempts\): No space left on device$"):
            storage.put_if_absent(str(tmp_path / "x.bin"), b"x" * 100_000)
        assert names_below(tmp_path) == set()
        assert storage.put_if_absent(str(tmp_path / "x.bin"), b"x") is True
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_cannot_be_brought_to_disk_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        storage.put_if_absent(str(tmp_path / "x.bin"), b"1")
    assert names_below(tmp_path) == set()


def test_what_may_pass_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter([OSError(errno.EIO, "shaky"), OSError(errno.EIO, "shaky")])
    link = os.link

    def shaky(source: Path, target: Path) -> None:
        for outcome in outcomes:
            raise outcome
        link(source, target)

    monkeypatch.setattr(os, "link", shaky)
    assert storage.put_if_absent(str(tmp_path / "x.bin"), b"whole") is True
    assert (tmp_path / "x.bin").read_bytes() == b"whole"


@pytest.mark.parametrize("number, kind", [(errno.EROFS, DeniedError), (errno.EACCES, DeniedError)])
def test_a_refusal_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError]
) -> None:
    calls = []

    def refuse(source: Path, target: Path) -> None:
        calls.append(target)
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(kind) as caught:
        storage.put_if_absent(str(tmp_path / "x.bin"), b"1")
    assert len(calls) == 1 and one_plain_line(caught.value) and str(tmp_path / "x.bin") in str(caught.value)


def test_a_read_only_disk_is_denied_at_once(tmp_path: Path) -> None:
    options = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(tmp_path)]
    if subprocess.run(options, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises(DeniedError, match="the file system is read-only"):
            storage.put(str(tmp_path / "out/x.bin"), b"1")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("below", ["file/x", "file/x/y"])
@pytest.mark.parametrize("write", [storage.put, storage.put_if_absent])
def test_a_file_in_the_place_of_a_folder_is_named_at_once(
    tmp_path: Path, below: str, write: Callable[[str, bytes], object]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a file is in the place of a folder"):
        write(str(tmp_path / below), b"1")


@pytest.mark.parametrize("name, reason", [("none.bin", "does not exist"), ("", "it is a folder"),
                                          ("n" * 300, "File name too long"), ("a\0b", "null byte")])  # fmt: skip
def test_what_cannot_be_read_locally_is_absent_at_once(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(AbsentError, match=reason) as caught:
        storage.read(str(tmp_path / name))
    assert "attempts" not in str(caught.value) and "\n" not in str(caught.value)


def test_an_absent_folder(tmp_path: Path) -> None:
    absent = str(tmp_path / "none")
    assert storage.names(absent) == []
    assert not storage.exists(absent) and not storage.is_folder(absent)
    for action in (lambda: list(storage.walk(absent)), lambda: storage.stat(absent), lambda: storage.open_read(absent)):
        with pytest.raises(AbsentError, match=absent):
            action()


def test_names_are_sorted_and_of_one_level(store: str) -> None:
    for name in ("b.txt", "a.txt", "folder/c.txt"):
        storage.put(storage.join(store, name), b"1")
    assert [name for name in storage.names(store) if name != ".tmp"] == ["a.txt", "b.txt", "folder"]
    assert storage.is_folder(storage.join(store, "folder"))
    assert not storage.is_folder(storage.join(store, "a.txt"))


def test_walk_leaves_out_what_is_hidden_below_the_folder_only(store: str) -> None:
    root = storage.join(store, ".cache", "set")
    for name in ("a.jpg", "_b.jpg", ".hidden.jpg", ".git/c.jpg", "sub/.d/e.jpg", "sub/f.jpg"):
        storage.put(storage.join(root, name), b"1")
    found = {entry.location.removeprefix(root + "/") for entry in storage.walk(root)}
    assert found == {"a.jpg", "_b.jpg", "sub/f.jpg"}


def test_other_stores_are_walked_by_the_same_rules() -> None:
    root = f"memory://{time.time_ns()}"
    for name in ("a.jpg", "_b.jpg", ".git/c.jpg", "sub/f.jpg"):
        storage.put(storage.join(root, name), b"12")
    found = {entry.location.removeprefix(root + "/"): entry.size for entry in storage.walk(root)}
    assert found == {"a.jpg": 2, "_b.jpg": 2, "sub/f.jpg": 2}
    with pytest.raises(AbsentError, match="cannot list memory://nowhere: it does not exist"):
        list(storage.walk("memory://nowhere"))


def test_a_link_that_leads_up_is_not_followed_and_others_are(tmp_path: Path) -> None:
    (tmp_path / "set/sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set/sub/a.jpg").touch()
    (tmp_path / "elsewhere/b.jpg").touch()
    (tmp_path / "set/sub/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/dangling.jpg").symlink_to(tmp_path / "none.jpg")
    found = {entry.location.removeprefix(f"{tmp_path}/set/") for entry in storage.walk(str(tmp_path / "set"))}
    assert found == {"sub/a.jpg", "linked/b.jpg", "dangling.jpg"}


def test_an_etag_changes_with_the_content(store: str) -> None:
    location = storage.join(store, "x.bin")
    storage.put(location, b"1")
    before = storage.stat(location)
    assert before == next(entry for entry in storage.walk(store) if entry.location == location)
    storage.put(location, b"2")
    assert storage.stat(location).etag != before.etag
    assert storage.stat(location).size == before.size


def test_walk_streams_more_than_a_page_of_s3_keys(bucket_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {f"{index:04d}.jpg" for index in range(1_050)}
    fs, path = storage.filesystem(bucket_folder)
    fs.pipe({f"{path}/{key}": b"" for key in keys})
    pages = []
    call_s3 = type(fs).call_s3
    monkeypatch.setattr(type(fs), "call_s3", lambda self, *a, **k: pages.append(a) or call_s3(self, *a, **k))
    entries = storage.walk(bucket_folder)
    first = next(entries)
    assert len(pages) == 1
    names = [first.location, *(entry.location for entry in entries)]
    assert len(pages) == 2
    assert sorted(names) == sorted(f"{bucket_folder}/{key}" for key in keys)


def test_s3_locations_keep_the_scheme_they_were_asked_by(bucket_folder: str) -> None:
    storage.put(f"{bucket_folder}/x.jpg", b"1")
    folder = bucket_folder.replace("s3://", "s3a://")
    assert [entry.location for entry in storage.walk(folder)] == [f"{folder}/x.jpg"]


def test_an_absent_bucket_is_named(s3: S3) -> None:
    location = "s3://no-such-bucket/x.bin"
    for action in (
        lambda: storage.read(location),
        lambda: storage.put(location, b"1"),
        lambda: storage.put_if_absent(location, b"1"),
        lambda: list(storage.walk("s3://no-such-bucket")),
    ):
        with pytest.raises(AbsentError, match=r"cannot \w+ s3://no-such-bucket.*: no such bucket$"):
            action()


@pytest.mark.parametrize("location", ["s3://densemask", "s3://Not_A_Bucket!/x", "s3://densemask/" + "k" * 2000])
def test_what_cannot_be_a_key_is_absent_at_once(s3: S3, location: str) -> None:
    with pytest.raises(AbsentError) as caught:
        storage.read(location)
    assert "attempts" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_range_past_the_end_of_an_object_is_absent(bucket_folder: str) -> None:
    storage.put(f"{bucket_folder}/x.bin", b"123")
    with pytest.raises(AbsentError, match="shorter than it was"):
        storage.read(f"{bucket_folder}/x.bin", 10, 20)


def test_a_reader_may_not_write(s3: S3, bucket_folder: str) -> None:
    location = f"{bucket_folder}/x.bin"
    storage.put(location, b"1")
    with s3.acting_as(READER):
        assert storage.read(location) == b"1"
        for write in (storage.put, storage.put_if_absent):
            with pytest.raises(DeniedError, match=f"cannot write {location}2: no permission") as caught:
                write(location + "2", b"2")
            assert one_plain_line(caught.value)
    assert storage.names(bucket_folder) == ["x.bin"]


def test_wrong_credentials_are_denied(s3: S3, bucket_folder: str) -> None:
    storage.put(f"{bucket_folder}/x.bin", b"1")
    with s3.acting_as(STRANGER):
        for action in (
            lambda: storage.read(f"{bucket_folder}/x.bin"),
            lambda: storage.put_if_absent(f"{bucket_folder}/y.bin", b"1"),
            lambda: list(storage.walk(bucket_folder)),
            lambda: storage.exists(f"{bucket_folder}/x.bin"),
        ):
            with pytest.raises(DeniedError, match="no permission") as caught:
                action()
            assert one_plain_line(caught.value)


def test_no_credentials_are_denied(s3: S3, bucket_folder: str) -> None:
    with s3.acting_as(None), pytest.raises(DeniedError, match="Unable to locate credentials"):
        storage.read(f"{bucket_folder}/x.bin")


@pytest.mark.parametrize("scheme, extra", [("gs", "gcs"), ("abfss", "azure")])
def test_a_client_that_is_not_installed_is_named_with_its_extra(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*args: object, **options: object) -> None:
        raise ImportError("no client")

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    with pytest.raises(StorageError, match=rf"^{scheme}:// needs a client: pip install 'densemask\[{extra}\]'$"):
        storage.read(f"{scheme}://bucket/x")


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(AbsentError, match=r"htp://host/x\.jpg: Protocol not known: htp"):
        storage.read("htp://host/x.jpg")


def test_credentials_in_a_location_are_refused_and_not_repeated() -> None:
    with pytest.raises(DeniedError) as caught:
        storage.read("s3://user:secret@bucket/x")
    assert str(caught.value) == "s3://bucket/x carries credentials; put them into the environment instead"


@pytest.mark.parametrize("location, shown", [
    ("s3://key:secret@bucket/a b#1.jpg", "s3://bucket/a b#1.jpg"),
    ("https://host/x.jpg?X-Amz-Signature=abc", "https://host/x.jpg"),
    ("https://user@host/x.jpg?token", "https://host/x.jpg"),
    ("az://box/x.jpg?sig=abc&se=1", "az://box/x.jpg"),
    ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
    ("abfss://box@account.dfs.core.windows.net/x", "abfss://box@account.dfs.core.windows.net/x"),
    ("/data/user@home?x=1/a.jpg", "/data/user@home?x=1/a.jpg"),
])  # fmt: skip
def test_public_holds_nothing_secret_and_all_else(location: str, shown: str) -> None:
    assert storage.public(location) == shown


@pytest.mark.parametrize("location, secret", [
    ("s3://key:secret@bucket/a.jpg", True),
    ("https://host/x.jpg?X-Amz-Algorithm=A&X-Amz-Signature=abc", True),
    ("https://host/x.jpg?AWSAccessKeyId=abc", True),
    ("az://box/x.jpg?se=1&sig=abc", True),
    ("https://host/x.jpg?size=1&design=2", False),
    ("https://host/x.jpg?page=1#sig=2", False),
    ("abfss://box@account.dfs.core.windows.net/x", False),
    ("s3://bucket/what?.jpg", False),
    ("/data/user@home?token=1/a.jpg", False),
])  # fmt: skip
def test_locations_with_secrets_are_told_from_others(location: str, secret: bool) -> None:
    assert storage.has_secret(location) == secret


def test_a_signed_location_that_refuses_is_not_repeated(leaky_site: str) -> None:
    with pytest.raises(DeniedError, match="no permission .status 403") as caught:
        storage.read(f"{leaky_site}/picture.jpg")
    assert SECRET in str(caught.value.__cause__)
    assert SECRET not in str(caught.value)


def test_a_message_is_scrubbed_of_what_its_urls_hide() -> None:
    message = "403, url='https://u:pw@host/x.jpg?X-Amz-Signature=abc' (s3://key:pw@bucket/a), see https://host/why"
    assert storage.scrubbed(message) == "403, url='https://host/x.jpg' (s3://bucket/a), see https://host/why"
    assert storage.scrubbed("no URL: a?b=c d@e") == "no URL: a?b=c d@e"


@pytest.mark.parametrize("location, whole", [
    ("file:///data/x", "/data/x"), ("local:///data/x/", "/data/x"), ("s3://bucket/x/", "s3://bucket/x"), ("/", "/"),
])  # fmt: skip
def test_absolute(location: str, whole: str) -> None:
    assert storage.absolute(location) == whole


def test_absolute_is_relative_to_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("data/../x") == str(tmp_path / "x")


@pytest.mark.parametrize("base, joined", [("/", "/a/b"), ("/out/", "/out/a/b"), ("s3://bucket", "s3://bucket/a/b")])
def test_join(base: str, joined: str) -> None:
    assert storage.join(base, "a", "b") == joined
