"""Labels in the formats of others, read back by their own readers where they are at hand."""

import csv
import io
import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from pipeline import export, images, masks, storage
from pipeline.config import Source
from pipeline.errors import ConfigError, RunError
from pipeline.export import coco, cvat, label_studio
from pipeline.export.job import run as job
from pipeline.export.job.naming import file_names
from pipeline.export.job.run import Exported, export_labels
from pipeline.selection import select
from pipeline.sources import list_images
from pipeline.training import data
from tests.pipeline.archives import CLASSES, Archive, Shot, blobs, write_photograph, write_run

CONFIDENCE = {"a/b.jpg": 0.75, "c/b.jpg": 0.25, "c/b.png": 0.5, "d é.jpg": 1.0, "e.jpg": 0.625}
ORDER = ["c/b.jpg", "c/b.png", "e.jpg", "a/b.jpg", "d é.jpg"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Photographs; ids hold folders, and two of them differ in their suffix alone."""
    for number, name in enumerate(CONFIDENCE):
        write_photograph(tmp_path / "raw" / name, 40, 48, number)
    return tmp_path / "raw"


@pytest.fixture
def archive(raw: Path, tmp_path: Path) -> Archive:
    return labelled(raw, str(tmp_path / "out"))


def labelled(raw: Path, output: str) -> Archive:
    shots = [Shot(name, str(raw / name), blobs(number), CONFIDENCE[name]) for number, name in enumerate(CONFIDENCE)]
    return write_run(output, shots)


def truth(archive: Archive) -> dict[str, bytes]:
    """The mask PNGs of the archive by image id."""
    rows = [row for table in masks.read_rows(*archive) for row in table.to_pylist()]
    return {row["image_id"]: row["mask"]["bytes"] for row in rows if row["mask"]}


def pixels(archive: Archive) -> dict[str, np.ndarray]:
    return {image_id: images.decode_mask(png) for image_id, png in truth(archive).items()}


def exported(archive: Archive, format_name: str, to: Path | str, **options: Any) -> Exported:
    condition = options.pop("condition", None)
    return export_labels(select(archive.output, condition=condition), format_name, str(to), **options)


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "images.csv").read_text())))


def content(folder: str) -> dict[str, bytes]:
    """Every file of a folder or prefix, hidden ones too."""
    fs, path = storage.filesystem(folder)
    return {str(name).removeprefix(path): fs.cat_file(name) for name in fs.find(path)}


# Formats


@pytest.mark.parametrize("name", export.names())
def test_every_format_holds_the_contract(name: str, archive: Archive, store: str) -> None:
    module = export.load(name)
    assert isinstance(module.POLYGONS, bool) and module.__doc__
    done = exported(archive, name, store)
    found = content(store)
    assert (done.images, done.left_out, done.format, done.confidence) == (5, 0, name, (0.25, 1.0))
    assert {f"/{path}" for path in done.documents} <= set(found)
    assert sum(path.endswith(".jpg") for path in found) == 5
    assert not any(part.startswith(".") for path in found for part in PurePosixPath(path).parts)

    again = exported(archive, name, store)
    assert again == done and content(store) == found


def test_a_voc_layout_gives_the_same_masks_bit_for_bit(archive: Archive, tmp_path: Path) -> None:
    exported(archive, "voc", tmp_path / "voc")
    listing = list_images(Source(location=str(tmp_path / "voc"), split="train")).to_pylist()
    by_name = {row["name"]: row["image_id"] for row in table(tmp_path / "voc")}
    assert [by_name[row["image_id"]] for row in listing] == ORDER
    for row in listing:
        image_id = by_name[row["image_id"]]
        assert Path(row["truth_uri"]).read_bytes() == truth(archive)[image_id]
        assert np.array_equal(images.decode_mask(Path(row["truth_uri"]).read_bytes()), pixels(archive)[image_id])
    everything = list_images(Source(location=str(tmp_path / "voc")))
    assert everything["truth_uri"].null_count == 0 and len(everything) == 5


def test_training_reads_a_voc_layout(archive: Archive, tmp_path: Path) -> None:
    exported(archive, "voc", tmp_path / "voc")
    examples = data.load(Source(location=str(tmp_path / "voc"), split="train"), len(CLASSES), 255, 0)
    expected = [np.bincount(pixels(archive)[image_id].ravel(), minlength=3).tolist() for image_id in ORDER]
    assert examples.pixels.tolist() == expected


def test_void_and_own_colours_leave_untouched(raw: Path, tmp_path: Path) -> None:
    labels = blobs(1)
    labels[:5] = 255
    own = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    archive = write_run(str(tmp_path / "out"), [Shot("e.jpg", str(raw / "e.jpg"), labels)], palette=own)
    exported(archive, "voc", tmp_path / "voc")
    with Image.open(tmp_path / "voc/SegmentationClass/e.png") as mask:
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), labels)
        assert mask.getpalette()[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 9]  # type: ignore[index]
    assert (tmp_path / "voc/labelmap.txt").read_text().splitlines()[1:3] == ["background:1,2,3::", "red thing:4,5,6::"]
    assert (tmp_path / "voc/classes.txt").read_text().splitlines()[1] == "red thing,4,5,6"
    exported(archive, "coco", tmp_path / "coco")
    found = COCO(str(tmp_path / "coco/annotations/instances_train.json"))
    assert np.array_equal(painted(found, 1), np.where(labels == 255, 0, labels))


def painted(found: COCO, image: int) -> np.ndarray:
    """The mask of an image, put together of its annotations: category ids uint8 [H, W]."""
    entry = found.imgs[image]
    labels = np.zeros((entry["height"], entry["width"]), np.uint8)
    for annotation in found.loadAnns(found.getAnnIds(image)):
        inside = found.annToMask(annotation).astype(bool)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert annotation["area"] == inside.sum() and annotation["bbox"] == [columns[0], rows[0], width, height]
        assert not labels[inside].any(), "annotations overlap"
        labels[inside] = annotation["category_id"]
    return labels


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_the_same_masks(archive: Archive, tmp_path: Path, polygons: bool) -> None:
    exported(archive, "coco", tmp_path / "coco", polygons=polygons)
    found = COCO(str(tmp_path / "coco/annotations/instances_train.json"))
    assert [found.imgs[image]["source_id"] for image in sorted(found.imgs)] == ORDER
    assert [(each["id"], each["name"]) for each in found.loadCats(found.getCatIds())] == [
        (1, CLASSES[1]),
        (2, CLASSES[2]),
    ]
    for image, entry in found.imgs.items():
        assert np.array_equal(painted(found, image), pixels(archive)[entry["source_id"]])
        with Image.open(tmp_path / "coco/images" / entry["file_name"]) as photograph:
            assert photograph.size == (entry["width"], entry["height"])
    kinds = {type(annotation["segmentation"]) for annotation in found.anns.values()}
    assert kinds == {list if polygons else dict}
    assert len(found.anns) > 20 and list(found.anns) == list(range(1, len(found.anns) + 1))


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12))
def test_outlines_rasterise_to_the_mask(seed: int, height: int, width: int) -> None:
    from pycocotools import mask as rasteriser
    from scipy import ndimage

    mask = np.random.default_rng(seed).random((height, width)) < 0.6
    components, count = ndimage.label(mask)
    for number in range(1, count + 1):
        polygons = coco.outlines(components == number, 2, 3)
        rles = rasteriser.frPyObjects(polygons, height + 4, width + 5)
        expected = np.pad(components == number, ((2, 2), (3, 2)))
        assert np.array_equal(rasteriser.decode(rasteriser.merge(rles)), expected)


def test_classes_without_a_background_are_all_exported(raw: Path, tmp_path: Path) -> None:
    shot = Shot("e.jpg", str(raw / "e.jpg"), blobs(0))
    archive = write_run(str(tmp_path / "out"), [shot], classes=("sky", "road", "car"))
    exported(archive, "coco", tmp_path / "coco")
    found = COCO(str(tmp_path / "coco/annotations/instances_train.json"))
    assert np.array_equal(painted(found, 1), blobs(0) + 1)
    assert found.cats[1]["name"] == "sky"


def decoded_brush(rle: list[int]) -> np.ndarray:
    """The values of a brush's RLE: uint8 [N], read bit by bit as its format says."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    position = 0

    def read(size: int) -> int:
        nonlocal position
        position += size
        return int(bits[position - size : position], 2)

    values: list[int] = []
    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    while len(values) < count:
        repeated, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    return np.array(values, np.uint8)


def test_brushes_are_as_label_studio_writes_them() -> None:
    mask = np.zeros((3, 5), bool)
    mask[0, 1:3] = mask[1, 4] = mask[2, 0] = True
    # label_studio_sdk.converter.brush.mask2rle of the same mask, times 255
    expected = [0, 0, 0, 60, 57, 27, 252, 96, 19, 255, 225, 112, 9, 255, 239, 128, 0]
    assert list(label_studio.brush_rle(mask)) == expected


@pytest.mark.parametrize("mask", [np.ones((300, 301), bool), np.zeros((1, 1), bool), blobs(3, 60, 70) > 0])
def test_brushes_are_decoded_to_the_mask(mask: np.ndarray) -> None:
    rgba = decoded_brush(list(label_studio.brush_rle(mask))).reshape(*mask.shape, 4)
    assert np.array_equal(rgba, np.repeat(mask[..., None] * 255, 4, 2))


def test_label_studio_gets_tasks_with_scores_and_an_interface(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "label studio"
    exported(archive, "label-studio", folder)
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [task["data"]["image_id"] for task in tasks] == ORDER
    interface = ElementTree.parse(folder / "labels.xml").getroot()
    labels = [label.get("value") for label in interface.iter("Label")]
    assert labels == list(CLASSES[1:])
    assert interface.find("Image").get("value") == "$image"  # type: ignore[union-attr]
    for task in tasks:
        (prediction,) = task["predictions"]
        assert prediction["score"] == CONFIDENCE[task["data"]["image_id"]]
        found = np.zeros((40, 48), np.uint8)
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"]) == ("label", "image")
            assert (region["original_width"], region["original_height"]) == (48, 40)
            (label,) = region["value"]["brushlabels"]
            alpha = decoded_brush(region["value"]["rle"]).reshape(40, 48, 4)[..., 3]
            found[alpha == 255] = CLASSES.index(label)
        assert np.array_equal(found, pixels(archive)[task["data"]["image_id"]])
        served = unquote(task["data"]["image"].removeprefix("/data/local-files/?d="))
        assert (tmp_path / served).is_file()


def test_label_studio_finds_photographs_where_they_are(archive: Archive, raw: Path, tmp_path: Path) -> None:
    exported(archive, "label-studio", tmp_path / "ls", copy=False)
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text())
    places = ["/" + unquote(task["data"]["image"].removeprefix("/data/local-files/?d=")) for task in tasks]
    assert places == [str(raw / image_id) for image_id in ORDER]
    assert not (tmp_path / "ls/images").exists()


def test_cvat_gets_masks_in_the_order_of_review(archive: Archive, tmp_path: Path) -> None:
    exported(archive, "cvat", tmp_path / "cvat")
    root = ElementTree.parse(tmp_path / "cvat/annotations.xml").getroot()
    assert root.findtext("version") == "1.1" and root.findtext("meta/task/size") == "5"
    labels = [(label.findtext("name"), label.findtext("color")) for label in root.iter("label")]
    assert labels == [(CLASSES[1], "#800000"), (CLASSES[2], "#008000")]
    assert [image.get("id") for image in root.iter("image")] == ["0", "1", "2", "3", "4"]
    by_file = {row["file"]: row["image_id"] for row in table(tmp_path / "cvat")}
    names = [str(image.get("name")) for image in root.iter("image")]
    assert [by_file[f"images/{name}"] for name in names] == ORDER
    assert sorted(names) == names == sorted(path.name for path in (tmp_path / "cvat/images").iterdir())
    for image, image_id in zip(root.iter("image"), ORDER, strict=True):
        found = np.zeros((40, 48), np.uint8)
        for mask in image.iter("mask"):
            left, top, width, height = (int(mask.get(name, "")) for name in ("left", "top", "width", "height"))
            runs = [int(run) for run in mask.get("rle", "").split(", ")]
            assert sum(runs) == width * height
            inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
            found[top : top + height, left : left + width] += inside.astype(np.uint8) * CLASSES.index(
                mask.get("label", "")
            )
        assert np.array_equal(found, pixels(archive)[image_id])


def test_cvat_runs_begin_outside() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:4] = [[True, False], [True, True]]
    assert cvat.cropped_rle(mask) == ((2, 1, 2, 2), [0, 1, 1, 2])


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown format 'label_studio'; did you mean 'label-studio'\? known: coco, "
    ):
        export.load("label_studio")


# What is exported


def test_only_the_least_certain_so_many(archive: Archive, tmp_path: Path) -> None:
    assert exported(archive, "voc", tmp_path / "voc", limit=2).images == 2
    assert [row["image_id"] for row in table(tmp_path / "voc")] == ORDER[:2]
    assert len(list((tmp_path / "voc/JPEGImages").rglob("*.jpg"))) == 2


def test_only_those_for_which_a_condition_holds(archive: Archive, tmp_path: Path) -> None:
    done = exported(archive, "coco", tmp_path / "coco", condition="confidence between 0.5 and 0.7")
    assert (done.images, done.confidence) == (2, (0.5, 0.625))
    assert [row["image_id"] for row in table(tmp_path / "coco")] == ["c/b.png", "e.jpg"]


def test_photographs_that_are_not_the_labelled_ones_are_left_out(archive: Archive, raw: Path, tmp_path: Path) -> None:
    (raw / "c/b.jpg").unlink()
    write_photograph(raw / "e.jpg", 40, 48, seed=99)  # the same size, but another picture
    seen: list[None] = []
    done = exported(archive, "coco", tmp_path / "coco", progress=lambda: seen.append(None))
    assert (done.images, done.left_out, len(seen)) == (3, 2, 5)
    assert done.first_left_out is not None and done.first_left_out.startswith("c/b.jpg: ")
    reasons = {row["image_id"]: row["left_out"] for row in table(tmp_path / "coco") if row["left_out"]}
    assert "does not exist" in reasons["c/b.jpg"] and "changed since it was labelled" in reasons["e.jpg"]
    files = {row["image_id"] for row in table(tmp_path / "coco") if row["file"]}
    assert files == set(CONFIDENCE) - set(reasons)
    found = COCO(str(tmp_path / "coco/annotations/instances_train.json"))
    assert [entry["source_id"] for entry in found.imgs.values()] == ["c/b.png", "a/b.jpg", "d é.jpg"]


def test_a_photograph_of_another_size_is_left_out_whatever_its_etag(raw: Path, tmp_path: Path) -> None:
    shots = [Shot("e.jpg", str(raw / "e.jpg"), blobs(0, 48, 40)), Shot("a.jpg", str(raw / "a/b.jpg"), blobs(0))]
    archive = write_run(str(tmp_path / "out"), shots)
    done = exported(archive, "voc", tmp_path / "voc")
    assert done.first_left_out == "e.jpg: the photograph was changed since: it is 48x40, not 40x48"


def test_where_nothing_can_be_exported_the_end_is_red(archive: Archive, raw: Path, tmp_path: Path) -> None:
    for name in CONFIDENCE:
        (raw / name).unlink()
    with pytest.raises(RunError, match="none of 5 images can be exported; the first: c/b.jpg: "):
        exported(archive, "voc", tmp_path / "voc")
    for number, name in enumerate(CONFIDENCE):
        write_photograph(raw / name, 40, 48, number)
    assert exported(archive, "cvat", tmp_path / "cvat", copy=False).images == 5


def test_jpegs_leave_as_they_are_and_others_right_way_up(tmp_path: Path) -> None:
    plain = write_photograph(tmp_path / "plain.jpg", 40, 48)
    turned = write_photograph(tmp_path / "turned.jpg", 48, 40, orientation=6)
    png = write_photograph(tmp_path / "other.png", 40, 48)
    cmyk = str(tmp_path / "cmyk.jpg")
    Image.new("CMYK", (48, 40), (0, 255, 0, 0)).save(cmyk)
    places = {Path(place).name: place for place in (plain, turned, png, cmyk)}
    archive = write_run(str(tmp_path / "out"), [Shot(name, place, blobs(0)) for name, place in places.items()])
    assert exported(archive, "voc", tmp_path / "voc").images == 4
    folder = tmp_path / "voc/JPEGImages"
    assert (folder / "plain.jpg").read_bytes() == Path(plain).read_bytes()
    for name in ("turned", "other", "cmyk"):
        with Image.open(folder / f"{name}.jpg") as image:
            assert (image.format, image.mode, image.size, dict(image.getexif())) == ("JPEG", "RGB", (48, 40), {})


def test_photographs_come_out_of_tars(raw: Path, tmp_path: Path) -> None:
    tar = tmp_path / "set.tar"
    with tarfile.open(tar, "w") as archive_file:
        archive_file.add(raw / "e.jpg", "one.jpg")
        archive_file.add(raw / "a/b.jpg", "two.jpg")
    listing = list_images(Source(location=str(tar))).to_pylist()
    shots = [Shot(row["image_id"], row["uri"], blobs(number), part=row["part"]) for number, row in enumerate(listing)]
    archive = write_run(str(tmp_path / "out"), shots)
    assert exported(archive, "voc", tmp_path / "voc").images == 2
    assert (tmp_path / "voc/JPEGImages/set.tar/one.jpg").read_bytes() == (raw / "e.jpg").read_bytes()
    with pytest.raises(RunError, match="has to be copied out"):
        exported(archive, "label-studio", tmp_path / "ls", copy=False)


def test_photographs_and_labels_go_from_s3_to_s3(raw: Path, bucket_folder: str) -> None:
    for name in ("e.jpg", "a/b.jpg"):
        storage.put(f"{bucket_folder}/raw/{name}", (raw / name).read_bytes())
    shots = [Shot(name, f"{bucket_folder}/raw/{name}", blobs(0)) for name in ("e.jpg", "a/b.jpg")]
    archive = write_run(f"{bucket_folder}/out", shots)
    storage.put(f"{bucket_folder}/raw/e.jpg", (raw / "a/b.jpg").read_bytes())
    done = exported(archive, "label-studio", f"{bucket_folder}/ls")
    assert (done.images, done.left_out) == (1, 1)
    (task,) = json.loads(storage.read(f"{bucket_folder}/ls/tasks.json"))
    assert task["data"]["image"] == f"{bucket_folder}/ls/images/a/b.jpg"
    assert storage.read(task["data"]["image"]) == (raw / "a/b.jpg").read_bytes()
    assert exported(archive, "label-studio", f"{bucket_folder}/ls", copy=False).images == 2
    tasks = json.loads(storage.read(f"{bucket_folder}/ls/tasks.json"))
    assert [task["data"]["image"] for task in tasks] == [f"{bucket_folder}/raw/a/b.jpg", f"{bucket_folder}/raw/e.jpg"]


# How


class Interrupted(Exception):
    """Stands for a Ctrl-C in the middle."""


@pytest.mark.parametrize("name", export.names())
def test_an_interrupted_export_goes_on_behind_its_last_whole_shard(
    name: str, archive: Archive, raw: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(archive, name, tmp_path / "in one go" / Path(store).name)
    left = [3]

    def interrupt() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted

    with pytest.raises(Interrupted):
        exported(archive, name, store, progress=interrupt)
    read: list[str] = []
    original = job.photographs.read
    monkeypatch.setattr(job.photographs, "read", lambda ref: read.append(ref.image_id) or original(ref))
    assert exported(archive, name, store).images == 5
    assert len(read) == 3  # the first shard's two were done
    whole = content(str(tmp_path / "in one go" / Path(store).name))
    found = content(store)
    if not storage.is_remote(store) or name != "label-studio":  # whose tasks say where photographs lie
        assert found == whole
    assert set(found) == set(whole)


def test_what_was_left_out_is_tried_again(archive: Archive, raw: Path, tmp_path: Path) -> None:
    kept = (raw / "a/b.jpg").rename(raw / "kept")
    left = [4]

    def interrupt() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted

    with pytest.raises(Interrupted):
        exported(archive, "voc", tmp_path / "voc", progress=interrupt)
    kept.rename(raw / "a/b.jpg")
    assert exported(archive, "voc", tmp_path / "voc").left_out == 0


NASTY = (
    "../../x.jpg",
    "/etc/passwd",
    "..",
    ".hidden/.x.jpg",
    "C:\\a.jpg",
    "a\nb.jpg",
    "x" * 400 + ".jpg",
    "日本/猫.jpg",
)


def test_an_export_stays_in_its_folder(raw: Path, tmp_path: Path) -> None:
    shots = [
        Shot(name, write_photograph(raw / f"nasty-{number}.jpg", 40, 48), blobs(number))
        for number, name in enumerate(NASTY)
    ]
    archive = write_run(str(tmp_path / "out"), shots)
    before = set(tmp_path.rglob("*"))
    for name in export.names():
        assert exported(archive, name, tmp_path / "exports" / name).images == len(NASTY)
    outside = [path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / "exports")]
    assert outside == []
    listing = list_images(Source(location=str(tmp_path / "exports/voc"), split="train"))
    assert len(listing) == len(NASTY) and listing["truth_uri"].null_count == 0
    by_name = {row["name"]: row["image_id"] for row in table(tmp_path / "exports/voc")}
    for row in listing.to_pylist():
        assert Path(row["truth_uri"]).read_bytes() == truth(archive)[by_name[row["image_id"]]]


@given(st.lists(st.text(st.sampled_from("aAéÉ./\\:\n -jpg\u0301"), max_size=12), max_size=8, unique=True))
def test_file_names_differ_everywhere_and_lead_nowhere(image_ids: list[str]) -> None:
    names = file_names(image_ids, [f"/set/{image_id}" for image_id in image_ids])
    assert len({name.casefold() for name in names}) == len(names)
    taken = {f"{name}{suffix}".casefold() for name in names for suffix in (".jpg", ".png")}
    for name in names:
        path = PurePosixPath(name)
        assert not path.is_absolute() and str(path) == name == name.strip()
        assert all(part and not part.startswith(".") and part.isprintable() for part in name.split("/"))
        assert not {str(parent).casefold() for parent in path.parents} & taken
    assert file_names(image_ids[::-1], [f"/set/{image_id}" for image_id in image_ids[::-1]]) == names[::-1]


def test_file_names_keep_folders_and_tell_namesakes_apart() -> None:
    ids = ["a/b.jpg", "c/b.jpg", "c/b.png", "x.jpg/y.jpg", "x.jpg"]
    names = file_names(ids, ids)
    assert names[0] == "a/b" and names[3] == "x.jpg/y"
    assert [name.rpartition("-")[0] for name in (names[1], names[2], names[4])] == ["c/b", "c/b", "x"]
