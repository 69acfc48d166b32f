"""Photographs and masks for torch."""

import io
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pipeline import masks, storage
from pipeline.dataset import MaskDataset, MaskStream, shuffled
from pipeline.errors import ConfigError, ImageError
from tests.pipeline.archives import CLASSES, Archive, Shot, blobs, write_photograph, write_run

COUNT = 7
IDS = [f"{number}.png" for number in range(COUNT)]


@pytest.fixture
def archive(store: str, tmp_path: Path) -> Archive:
    """Seven photographs and their masks, in four shards; all in a folder, or all on S3."""
    shots = []
    for number, name in enumerate(IDS):
        written = Path(write_photograph(tmp_path / "raw" / name, 40, 48, number)).read_bytes()
        place = storage.join(store, "raw", name)
        storage.put(place, written)
        shots.append(Shot(name, place, blobs(number), number / COUNT))
    return write_run(f"{store}/out", shots)


def photograph(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)


def is_item(item: dict[str, Any], number: int) -> bool:
    """Whether an item, as from the dataset or collated with others, is the photograph of that number."""
    return (
        np.array_equal(item["image"].numpy(), photograph(number).transpose(2, 0, 1))
        and np.array_equal(item["mask"].numpy(), blobs(number))
        and item["image_id"] == f"{number}.png"
        and item["confidence"] == pytest.approx(number / COUNT)
    )


def items(loader: Any) -> list[dict[str, Any]]:
    """The items of a loader of batches, one by one."""
    return [{name: batch[name][place] for name in batch} for batch in loader for place in range(len(batch["image_id"]))]


def right_half(rgb: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    return rgb[:, 24:], torch.from_numpy(labels[:, 24:]).long()


def test_an_item_is_a_photograph_with_its_mask(archive: Archive) -> None:
    dataset = MaskDataset(archive.output)
    assert (len(dataset), dataset.classes, dataset.palette) == (COUNT, CLASSES, None)
    assert all(is_item(dataset[number], number) for number in (3, 0, 6, 3))
    assert dataset[3]["image"].dtype == dataset[3]["mask"].dtype == torch.uint8
    assert is_item(dataset[-1], 6)
    for beyond in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            dataset[beyond]


def test_workers_read_it_in_parallel(archive: Archive) -> None:
    found = items(DataLoader(MaskDataset(archive.output), batch_size=3, num_workers=2, multiprocessing_context="fork"))
    assert len(found) == COUNT and all(is_item(item, number) for number, item in enumerate(found))
    stream = DataLoader(MaskStream(archive.output), batch_size=2, num_workers=2, multiprocessing_context="fork")
    streamed = sorted(items(stream), key=lambda item: item["image_id"])
    assert len(streamed) == COUNT and all(is_item(item, number) for number, item in enumerate(streamed))


def test_workers_may_be_spawned(local: Archive) -> None:
    dataset = MaskDataset(local.output, where="confidence > 0.1", transform=right_half)
    loader = DataLoader(
        dataset, batch_size=2, num_workers=2, shuffle=True, multiprocessing_context="spawn",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    found = items(loader)
    assert sorted(item["image_id"] for item in found) == IDS[1:]
    for item in found:
        number = IDS.index(item["image_id"])
        assert np.array_equal(item["image"].numpy(), photograph(number)[:, 24:].transpose(2, 0, 1))
        assert item["mask"].dtype == torch.int64 and np.array_equal(item["mask"].numpy(), blobs(number)[:, 24:])


@pytest.fixture
def local(tmp_path: Path) -> Archive:
    shots = [
        Shot(name, write_photograph(tmp_path / "raw" / name, 40, 48, number), blobs(number), number / COUNT)
        for number, name in enumerate(IDS)
    ]
    return write_run(str(tmp_path / "out"), shots)


def test_a_condition_a_recipe_and_a_run_choose(local: Archive) -> None:
    assert [item["image_id"] for item in MaskStream(local.output, where="confidence < 0.3")] == IDS[:3]
    assert len(MaskDataset(local.output, recipe=local.recipe, run=local.run)) == COUNT
    for options in ({"where": "confidense < 1"}, {"recipe": "none"}, {"run": "none"}, {"where": "confidence > 1"}):
        with pytest.raises(ConfigError):
            MaskDataset(local.output, **options)  # type: ignore[arg-type]


def test_neighbours_are_read_together_and_dropped_in_turn(
    local: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.masks.ROW_GROUP", 2)
    shots = [Shot(name, str(tmp_path / "raw" / name), blobs(number)) for number, name in enumerate(IDS)]
    archive = write_run(str(tmp_path / "grouped"), shots, shard_size=COUNT)
    read: list[int] = []
    original = masks.read_neighbours
    monkeypatch.setattr("pipeline.masks.read_neighbours", lambda *where: read.append(where[-1]) or original(*where))
    monkeypatch.setattr("pipeline.dataset.GROUPS", 2)
    dataset = MaskDataset(archive.output)
    for number in (0, 1, 2, 3, 0, 6, 1, 3):
        assert np.array_equal(dataset[number]["mask"].numpy(), blobs(number))
    assert read == [0, 2, 6, 3]
    assert len(pickle.dumps(dataset)) == len(pickle.dumps(MaskDataset(archive.output)))


def order(stream: MaskStream) -> list[str]:
    return [item["image_id"] for item in stream]


def test_a_seed_shuffles_shards_and_images_anew_each_epoch(local: Archive) -> None:
    assert order(MaskStream(local.output)) == IDS
    stream = MaskStream(local.output, seed=1)
    first = order(stream)
    assert sorted(first) == IDS and first != IDS
    assert order(stream) == first == order(MaskStream(local.output, seed=1))
    stream.set_epoch(1)
    second = order(stream)
    assert sorted(second) == IDS and second != first
    assert order(MaskStream(local.output, seed=2)) not in (first, second)


def test_workers_that_persist_hear_of_the_epoch_and_share_the_shards(local: Archive) -> None:
    stream = MaskStream(local.output, seed=1)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        epochs.append([item["image_id"] for item in loader])
    assert all(sorted(epoch) == IDS for epoch in epochs)
    assert epochs[0] == epochs[2] != epochs[1]


def test_more_workers_than_shards(local: Archive) -> None:
    stream = MaskStream(local.output, where="confidence < 0.3")
    assert sorted(item["image_id"] for item in DataLoader(stream, batch_size=None, num_workers=3)) == IDS[:3]


def test_a_lost_photograph_is_named_or_left_out(
    local: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "raw/2.png").unlink()
    write_photograph(tmp_path / "raw/4.png", 40, 48, 99)
    with pytest.raises(ImageError, match=r"2\.png: .*does not exist"):
        MaskDataset(local.output)[2]
    with pytest.raises(ImageError, match=r"4\.png: .*changed since"):
        MaskDataset(local.output)[4]
    with caplog.at_level(logging.WARNING):
        assert order(MaskStream(local.output)) == [IDS[number] for number in (0, 1, 3, 5, 6)]
    assert [message.startswith("left out") for message in caplog.messages] == [True, True]


def test_a_photograph_lies_as_its_mask_does(tmp_path: Path) -> None:
    place = write_photograph(tmp_path / "turned.png", 48, 40, 5, orientation=6)
    archive = write_run(str(tmp_path / "out"), [Shot("turned", place, blobs(0))])
    with Image.open(io.BytesIO(Path(place).read_bytes())) as image:
        assert image.size == (40, 48)
    assert MaskDataset(archive.output)[0]["image"].shape == (3, 40, 48)


@pytest.mark.parametrize("size", [0, 1, 3, 100])
def test_a_buffer_gives_everything_back_once(size: int) -> None:
    found = list(shuffled(iter(range(10)), np.random.default_rng(0), size))
    assert sorted(found) == list(range(10))
    assert (found == list(range(10))) == (size == 0)
    assert all(thing <= place + size for place, thing in enumerate(found))
