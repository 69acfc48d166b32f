import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.config import Source
from pipeline.errors import AbsentError, ImageError, SourceError
from pipeline.sources import ImageRef, detect, list_images, refs
from pipeline.sources.reading import read_part

AWKWARD = ("a.jpg", "UPPER.JPG", "sub dir/b#1.JPEG", "sub dir/deep/100%20.png", "ünï/日本.webp", "q?.tiff")
MILLION = """
import sys
from datetime import date
from pipeline import plan
from pipeline.config import Source
from pipeline.sources import list_images

table = list_images(Source(location=sys.argv[1] + "/list.txt"))
run = plan.add_run(sys.argv[1] + "/out", "0" * 16, table, 500, date(2025, 1, 1))
last = plan.read_shard(sys.argv[1] + "/out", "0" * 16, run, 1999)
assert len(last) == 500 and last[-1].uri.endswith("/00999999.jpg"), last[-1]
# Not getrusage: its maximum takes in what the parent had when it forked.
status = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""


def put_all(folder: str, objects: dict[str, bytes]) -> str:
    for name, data in objects.items():
        storage.put(storage.join(folder, name), data)
    return folder


def listed(location: str, **options: str) -> dict[str, ImageRef]:
    table = list_images(Source(location=location, **options))
    found = {ref.image_id: ref for ref in refs(table)}
    assert len(found) == table.num_rows
    return found


def content(ref: ImageRef) -> bytes:
    return read_part(ref.uri, ref.part)


def truth(ref: ImageRef) -> bytes | None:
    return None if ref.truth_uri is None else read_part(ref.truth_uri, ref.truth_part or "")


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def parquet_of(columns: dict[str, pa.Array], row_group_size: int = 3) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=row_group_size)
    return out.getvalue()


def test_a_folder_is_read_all_the_way_down_whatever_the_names(store: str) -> None:
    put_all(store, {name: name.encode() for name in AWKWARD} | {"notes.md": b"-", ".hidden/c.jpg": b"-"})
    found = listed(store)
    assert set(found) == set(AWKWARD)
    for name, ref in found.items():
        assert content(ref) == name.encode() and ref.bytes == len(name.encode())
        assert ref.etag == storage.stat(ref.uri).etag and ref.truth_uri is None


def test_a_folder_pairs_images_with_masks_by_stem(store: str) -> None:
    put_all(store, {"image/a.png": b"A", "image/sub/b.jpg": b"B", "image/c.jpg": b"C"})
    put_all(store, {"truth/a.png": b"a", "truth/sub/b.png": b"b", "truth/d.png": b"d"})
    found = listed(storage.join(store, "image"), truth=storage.join(store, "truth"))
    assert {name: truth(ref) for name, ref in found.items()} == {"a.png": b"a", "sub/b.jpg": b"b", "c.jpg": None}


@pytest.mark.parametrize("masks, message", [({"x.png": b""}, "no mask in .* has the file stem"),
                                            ({"x.txt": b""}, "no masks in")])  # fmt: skip
def test_a_truth_folder_that_fits_no_image_is_an_error(tmp_path: Path, masks: dict[str, bytes], message: str) -> None:
    put_all(str(tmp_path), {"image/a.jpg": b"A"} | {f"truth/{name}": data for name, data in masks.items()})
    with pytest.raises(SourceError, match=message):
        listed(str(tmp_path / "image"), truth=str(tmp_path / "truth"))


VOC = {
    "JPEGImages/1.jpg": b"one",
    "JPEGImages/2.jpg": b"two",
    "JPEGImages/3.jpg": b"three",
    "SegmentationClass/1.png": b"mask one",
    "SegmentationClass/2.png": b"mask two",
    "ImageSets/Segmentation/val.txt": b"2\n1 \ngone\n\n",
    "ImageSets/Segmentation/train.txt": b"3\n",
}


def test_a_voc_split_keeps_its_order_and_the_id_whose_file_is_missing(store: str) -> None:
    table = list_images(Source(location=put_all(store, VOC), split="val"))
    two, one, gone = refs(table)
    assert (two.image_id, content(two), truth(two)) == ("2", b"two", b"mask two")
    assert (one.image_id, content(one), truth(one)) == ("1", b"one", b"mask one")
    assert (gone.image_id, gone.etag, gone.truth_uri) == ("gone", "absent", None)
    with pytest.raises(ImageError, match=r"JPEGImages/gone.jpg: it does not exist"):
        content(gone)


def test_voc_without_a_split_is_all_its_images(store: str) -> None:
    found = listed(put_all(store, VOC))
    assert {name: truth(ref) for name, ref in found.items()} == {"1": b"mask one", "2": b"mask two", "3": None}


def test_voc_without_masks_has_no_truth(tmp_path: Path) -> None:
    put_all(str(tmp_path), {"JPEGImages/1.jpg": b"one"})
    assert listed(str(tmp_path))["1"].truth_uri is None


def test_voc_says_which_splits_there_are(store: str) -> None:
    with pytest.raises(SourceError, match=r"no split 'vall' in .*/ImageSets/Segmentation; there is train, val$"):
        listed(put_all(store, VOC), split="vall")


def test_a_split_that_is_not_text_is_one_plain_error(tmp_path: Path) -> None:
    put_all(str(tmp_path), VOC | {"ImageSets/Segmentation/val.txt": b"\xff\xfe1\x00\n"})
    with pytest.raises(SourceError, match=r"cannot read the list .*val.txt: .*UTF8") as caught:
        listed(str(tmp_path), split="val")
    assert "\n" not in str(caught.value)


def test_the_published_voc_folder(voc_root: Path) -> None:
    found = listed(str(voc_root), split="val")
    assert len(found) == 200 and all(ref.truth_uri and ref.bytes for ref in found.values())


def as_csv(columns: dict[str, list[str]]) -> bytes:
    out = io.BytesIO()
    pa.csv.write_csv(pa.table(columns), out)
    return out.getvalue()


def as_jsonl(columns: dict[str, list[str]]) -> bytes:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(columns: dict[str, list[str]]) -> bytes:
    return parquet_of({name: pa.array(values) for name, values in columns.items()})


WRITERS: dict[str, Callable[[dict[str, list[str]]], bytes]] = {
    "list.txt": lambda columns: "\r\n".join(["", *columns["uri"], ""]).encode(),
    "list.csv": as_csv,
    "list.jsonl": as_jsonl,
    "list.ndjson": as_jsonl,
    "list.parquet": as_parquet,
}


@pytest.fixture
def elsewhere(store: str, bucket_folder: str, tmp_path: Path) -> dict[str, bytes]:
    """Locations as a list in ``store``/lists may write them, and what is there."""
    put_all(store, {"lists/near/a b.jpg": b"near", "far.jpg": b"far"})
    put_all(str(tmp_path), {"local.jpg": b"local", "by url.jpg": b"url"})
    storage.put(f"{bucket_folder}/remote,#1.jpg", b"remote")
    return {
        "near/a b.jpg": b"near",
        "./near/a b.jpg": b"near",
        "../far.jpg": b"far",
        str(tmp_path / "local.jpg"): b"local",
        f"file://{tmp_path}/by url.jpg": b"url",
        f"{bucket_folder}/remote,#1.jpg": b"remote",
    }


@pytest.mark.parametrize("name", WRITERS)
def test_a_list_holds_relative_absolute_and_remote_locations(
    store: str, elsewhere: dict[str, bytes], name: str
) -> None:
    location = storage.join(store, "lists", name)
    storage.put(location, WRITERS[name]({"uri": list(elsewhere)}))
    found = listed(location)
    assert {written: content(ref) for written, ref in found.items()} == elsewhere
    assert all(ref.truth_uri is None for ref in found.values())


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "list.txt"])
def test_a_list_may_have_truths_ids_and_etags(store: str, name: str) -> None:
    put_all(store, {"a.jpg": b"A", "b.jpg": b"B", "masks/a.png": b"a"})
    columns = {"uri": ["a.jpg", "b.jpg"], "truth": ["masks/a.png", ""], "id": ["01", "02"], "etag": ["v1", "v2"]}
    storage.put(storage.join(store, name), WRITERS[name](columns))
    found = listed(storage.join(store, name))
    assert {key: (content(ref), truth(ref), ref.etag) for key, ref in found.items()} == {
        "01": (b"A", b"a", "v1"),
        "02": (b"B", None, "v2"),
    }


def test_an_image_without_an_id_in_its_list_goes_by_its_location(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri,image_id\na.jpg,first\nb.jpg,\n")
    assert set(listed(str(tmp_path / "list.csv"))) == {"first", "b.jpg"}


def test_listed_local_files_have_the_etag_and_size_of_the_file(tmp_path: Path) -> None:
    put_all(str(tmp_path), {"a.jpg": b"12345", "list.txt": b"a.jpg\nnone.jpg\n"})
    found = listed(str(tmp_path / "list.txt"))
    assert (found["a.jpg"].etag, found["a.jpg"].bytes) == storage.stat(str(tmp_path / "a.jpg"))[1:]
    assert (found["none.jpg"].etag, found["none.jpg"].bytes) == ("absent", None)


@pytest.mark.parametrize("line", ["none.jpg", "n" * 300, "s3://densemask", "htp://host/x.jpg", "s3://no-such-bucket/x"])
def test_a_line_that_leads_nowhere_is_the_fault_of_its_image(tmp_path: Path, s3: object, line: str) -> None:
    (tmp_path / "list.txt").write_text(line + "\n")
    (ref,) = listed(str(tmp_path / "list.txt")).values()
    with pytest.raises(ImageError) as caught:
        content(ref)
    assert "\n" not in str(caught.value)


def test_columns_of_a_list_can_have_other_names(tmp_path: Path) -> None:
    put_all(str(tmp_path), {"a.jpg": b"A", "a.png": b"a", "list.csv": b"file,label\na.jpg,a.png\n"})
    (ref,) = listed(str(tmp_path / "list.csv"), uri_column="file", truth_column="label").values()
    assert (content(ref), truth(ref)) == (b"A", b"a")


@pytest.mark.parametrize("name, data, message", [
    ("list.csv", b"file\na.jpg\n", r"list.csv has no column 'uri'; it has file$"),
    ("list.csv", b"uri,x\na.jpg\n", r"cannot read the list .*list.csv: CSV parse error: Expected 2 columns, got 1"),
    ("list.csv", b"uri\n\xff.jpg\n", r"cannot read the list .*list.csv: .*UTF8"),
    ("list.jsonl", b'{"uri": "a.jpg"\n', r"cannot read the list .*list.jsonl: JSON parse error"),
    ("list.txt", b"\xff.jpg\n", r"cannot read the list .*list.txt: .*UTF8"),
    ("list.txt", b"\n \n", r"no images in .*list.txt \(layout list\)"),
    ("list.parquet", b"not Parquet", r"list.parquet is not a Parquet file: "),
    ("set.tar", b"not a tar", r"set.tar is not a whole tar: "),
])  # fmt: skip
def test_what_cannot_be_a_source_is_one_plain_error(store: str, name: str, data: bytes, message: str) -> None:
    storage.put(storage.join(store, name), data)
    with pytest.raises(SourceError, match=message) as caught:
        listed(storage.join(store, name))
    assert "\n" not in str(caught.value)


def test_a_webdataset_tar_pairs_its_members(store: str) -> None:
    location = storage.join(store, "set.tar")
    members = {
        "one.jpg": b"1" * 700, "one.png": b"mask 1", "one.json": b"{}",
        "dir/two.seg.png": b"mask 2", "dir/two.JPEG": b"2",
        "three.png": b"3",
        "readme.txt": b"-",
        "four.webp": b"4", "four.cls": b"7",
    }  # fmt: skip
    storage.put(location, tar_of(members))
    found = listed(location)
    assert {key: (content(ref), truth(ref)) for key, ref in found.items()} == {
        "set.tar/one": (b"1" * 700, b"mask 1"),
        "set.tar/dir/two": (b"2", b"mask 2"),
        "set.tar/three": (b"3", None),
        "set.tar/four": (b"4", None),
    }
    assert found["set.tar/one"].bytes == 700


def test_a_folder_of_tars(store: str) -> None:
    for shard in ("00/a.tar", "00/b.tar", "c.tar"):
        storage.put(storage.join(store, shard), tar_of({"x.jpg": shard.encode()}))
    assert {key: content(ref) for key, ref in listed(store).items()} == {
        "00/a.tar/x": b"00/a.tar", "00/b.tar/x": b"00/b.tar", "c.tar/x": b"c.tar",
    }  # fmt: skip


def test_a_tar_cut_short_is_one_plain_error(store: str) -> None:
    storage.put(storage.join(store, "set.tar"), tar_of({"a.jpg": b"a" * 5000, "b.jpg": b"b" * 5000})[:3000])
    with pytest.raises(SourceError, match=r"set.tar is not a whole tar"):
        listed(storage.join(store, "set.tar"))


IMAGES = [f"image {index}".encode() * 50 for index in range(8)]
TRUTHS = [f"mask {index}".encode() if index % 2 else None for index in range(8)]


def as_structs(cells: list[bytes] | list[bytes | None]) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([None if cell is None else {"bytes": cell, "path": "x.png"} for cell in cells], kind)


@pytest.mark.parametrize("cells", [lambda cells: pa.array(cells, pa.binary()), as_structs,
                                   lambda cells: pa.array(cells, pa.large_binary())])  # fmt: skip
def test_parquet_cells_over_several_row_groups(store: str, cells: Callable[[object], pa.Array]) -> None:
    location = storage.join(store, "set.parquet")
    storage.put(location, parquet_of({"image": cells(IMAGES), "truth": cells(TRUTHS), "more": pa.array(range(8))}))
    found = list(listed(location).values())
    assert [ref.image_id for ref in found] == [f"set.parquet/{row}" for row in range(8)]
    assert [content(ref) for ref in found] == IMAGES
    assert [truth(ref) for ref in found] == [cell or b"" for cell in TRUTHS]


def test_parquet_columns_can_have_other_names_and_ids(store: str) -> None:
    location = storage.join(store, "set.parquet")
    ids = pa.array([f"id-{index}" for index in range(8)])
    storage.put(location, parquet_of({"jpg": pa.array(IMAGES), "seg": pa.array(TRUTHS), "id": ids}))
    found = listed(location, image_column="jpg", truth_column="seg")
    assert {key: content(ref) for key, ref in found.items()} == {
        f"set.parquet/id-{index}": data for index, data in enumerate(IMAGES)
    }


def test_a_folder_of_parquet_files(store: str) -> None:
    for name in ("a.parquet", "sub/b.parquet"):
        storage.put(storage.join(store, name), parquet_of({"image": pa.array([name.encode()])}))
    assert {key: content(ref) for key, ref in listed(store).items()} == {
        "a.parquet/0": b"a.parquet", "sub/b.parquet/0": b"sub/b.parquet",
    }  # fmt: skip


@pytest.mark.parametrize("columns, message", [
    ({"photo": pa.array([b"1"])}, r"has no column 'image' of image bytes; it has photo$"),
    ({"image": pa.array([1])}, r"column 'image' is int64; it must be binary or struct<bytes, path>$"),
])  # fmt: skip
def test_parquet_without_images_says_what_it_has(tmp_path: Path, columns: dict[str, pa.Array], message: str) -> None:
    (tmp_path / "set.parquet").write_bytes(parquet_of(columns))
    with pytest.raises(SourceError, match=message):
        listed(str(tmp_path / "set.parquet"))


@pytest.mark.parametrize("part", ["row=99;column=image", "row=0;column=gone"])
def test_a_cell_that_is_gone_is_the_fault_of_its_image(tmp_path: Path, part: str) -> None:
    (tmp_path / "set.parquet").write_bytes(parquet_of({"image": pa.array([b"1"])}))
    with pytest.raises(ImageError, match=r"set.parquet has no row \d+ of '\w+' to be read"):
        read_part(str(tmp_path / "set.parquet"), part)


def test_a_parquet_file_that_is_no_longer_one_is_the_fault_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "set.parquet").write_bytes(b"something else by now")
    with pytest.raises(ImageError, match=r"set.parquet has no row 0"):
        read_part(str(tmp_path / "set.parquet"), "row=0;column=image")


@pytest.mark.parametrize("objects, location, layout", [
    (VOC, "", "voc"),
    ({"a/b/c.JPG": b""}, "", "folder"),
    ({"a/notes.md": b"", "a/x.tar": b""}, "", "webdataset"),
    ({"a/x.parquet": b""}, "", "parquet"),
    ({"x.TAR": b""}, "x.TAR", "webdataset"),
    ({"x.csv": b""}, "x.csv", "list"),
    ({"x.parquet": parquet_of({"uri": pa.array(["a"])})}, "x.parquet", "list"),
    ({"x.parquet": parquet_of({"image": pa.array([b"a"])})}, "x.parquet", "parquet"),
])  # fmt: skip
def test_the_layout_is_told_by_what_is_there(store: str, objects: dict[str, bytes], location: str, layout: str) -> None:
    put_all(store, objects)
    assert detect(storage.join(store, location) if location else store) == layout


def test_the_output_inside_the_source_is_left_out(store: str) -> None:
    put_all(store, {"a.jpg": b"", "out/reports/overlay.png": b"", "outer/b.jpg": b""})
    table = list_images(Source(location=store), exclude=storage.join(store, "out"))
    assert sorted(table["image_id"].to_pylist()) == ["a.jpg", "outer/b.jpg"]


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    with pytest.raises(SourceError, match=r"no images in .* \(layout folder\); looked for .bmp, .jpeg, .jpg"):
        listed(str(tmp_path))


def test_an_absent_folder_is_absent(tmp_path: Path, bucket_folder: str) -> None:
    with pytest.raises(AbsentError, match="there is no folder"):
        listed(str(tmp_path / "none"))
    with pytest.raises(SourceError, match="no images in s3://"):
        listed(bucket_folder)


@pytest.mark.parametrize("row", [
    "https://me:S3CRET@host/b.jpg,",
    "https://host/b.jpg?X-Amz-Signature=S3CRET,",
    "b.jpg,s3://me:S3CRET@bucket/b.png",
])  # fmt: skip
def test_a_list_with_credentials_is_refused_before_they_are_kept(tmp_path: Path, row: str) -> None:
    (tmp_path / "list.csv").write_text(f"uri,truth\nhttps://host/a.jpg?size=2,\n{row}\n")
    with pytest.raises(
        SourceError, match="1 locations in .*list.csv carry credentials, such as that of .*//"
    ) as caught:
        list_images(Source(location=str(tmp_path / "list.csv")))
    assert "S3CRET" not in str(caught.value)


def test_a_split_needs_a_voc_layout(tmp_path: Path) -> None:
    put_all(str(tmp_path), {"a.jpg": b""})
    with pytest.raises(SourceError, match=r"split 'val' needs a VOC layout; .* is read as folder"):
        listed(str(tmp_path), split="val")


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    Path(str(tmp_path), "ok.jpg").touch()
    with open(bytes(tmp_path) + b"/b\xff.jpg", "wb"):
        pass
    with pytest.raises(SourceError, match=r"b\\udcff' is not UTF-8; rename it"):
        listed(str(tmp_path))


def test_a_million_lines_are_listed_and_planned_in_little_memory(tmp_path: Path) -> None:
    with open(tmp_path / "list.txt", "w") as file:
        file.writelines(f"s3://bucket/archive/{index % 1000:03d}/{index:08d}.jpg\n" for index in range(999_999))
        file.write("s3://bucket/archive/zzz/00999999.jpg\n")
    child = subprocess.run([sys.executable, "-c", MILLION, str(tmp_path)], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < 700  # MB; 105 of them are the imports
