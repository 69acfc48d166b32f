import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import images
from pipeline.classes import palette
from pipeline.errors import ImageError, RejectedImage, TruthError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LIMIT = 100_000_000
SIDE = 1024
# EXIF orientation -> how a camera that writes it has turned the upright picture.
TURNED = {
    1: lambda rgb: rgb,
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: np.rot90(rgb, 1),
    7: lambda rgb: rgb.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda rgb: np.rot90(rgb, -1),
}


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(image))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def most_of(data: bytes) -> bytes:
    return data[: len(data) * 4 // 5]


def pixels(data: bytes, max_side: int = SIDE) -> np.ndarray:
    return images.decode(data, LIMIT, max_side).rgb


def picture(height: int = 37, width: int = 53) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) * 2 % 256], 2).astype(np.uint8)


def png_header(width: int, height: int, depth: int = 1, colour: int = 0) -> bytes:
    """The start of a PNG that claims a size, with no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    ending = b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + ending


@pytest.mark.parametrize("kind, options", [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_colours_come_through(kind: str, options: dict[str, object]) -> None:
    photograph = images.decode(encoded(picture(), kind, **options), LIMIT, SIDE)
    assert np.array_equal(photograph.rgb, picture())
    assert (photograph.height, photograph.width) == (37, 53)
    assert photograph.rgb.dtype == np.uint8


@pytest.mark.parametrize("data, reason", [
    (b"", "the file is empty"),
    (b"<html>404</html>", "not an image: it starts with b'<html>404</html>'"),
    (most_of(encoded(picture(200, 200), "JPEG")), r"cannot be decoded: image file is truncated \(\d+ bytes"),
    (encoded(picture(), "JPEG")[:20], "not an image|cannot be decoded"),
    (most_of(encoded(picture())), "cannot be decoded: image file is truncated"),
    (most_of(encoded(picture(), "WEBP")), "cannot be decoded|not an image"),
    (png_header(0, 0), "not an image|it is 0x0 pixels"),
    (png_header(10, 10), "cannot be decoded"),
    (b"\xff\xd8" + b"\0" * 500, "not an image"),
])  # fmt: skip
def test_a_broken_file_is_unreadable_and_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        pixels(data)
    assert caught.value.status == "unreadable" and "\n" not in str(caught.value)


@given(cut=st.integers(0, 2000), flips=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), max_size=4))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_whatever_is_broken_in_a_file_only_image_errors_come_out(
    kind: str, cut: int, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(encoded(picture(), kind))
    for place, change in flips:
        data[place % len(data)] ^= change
    try:
        photograph = images.decode(bytes(data[: len(data) - cut % len(data)]), 1_000_000, SIDE)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert photograph.rgb.dtype == np.uint8 and photograph.rgb.ndim == 3


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels(encoded(cmyk, "JPEG", quality=100)).astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_byte(kind: str) -> None:
    grey = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    expected = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2)
    assert np.array_equal(pixels(encoded(grey, kind)), expected)


def test_a_big_endian_16_bit_tiff() -> None:
    data = encoded(Image.frombytes("I;16B", (2, 1), b"\xff\x00\x80\x00"), "TIFF")
    assert pixels(data)[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize("scale, expected", [(1.0, [0, 127, 255]), (255.0, [0, 127, 255])])
def test_a_float_tiff_of_either_range(scale: float, expected: list[int]) -> None:
    grey = (np.array([[0, 0.5, 1]]) * scale).astype(np.float32)
    assert pixels(encoded(grey, "TIFF"))[0, :, 1].tolist() == expected


def test_a_float_tiff_with_a_nan_is_black_there() -> None:
    assert pixels(encoded(np.array([[np.nan, 1]], np.float32), "TIFF"))[0, :, 0].tolist() == [0, 255]


def test_a_bilevel_image_is_black_and_white() -> None:
    bits = np.eye(9, dtype=bool)
    assert np.array_equal(pixels(encoded(bits))[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_on_white(mode: str) -> None:
    image = Image.new(mode, (3, 1))
    black = (0,) * (len(mode) - 1)
    for column, alpha in enumerate((0, 255, 127)):
        image.putpixel((column, 0), (*black, alpha))
    assert pixels(encoded(image))[0, :, 2].tolist() == [255, 0, 128]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert pixels(encoded(image, kind, transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert np.array_equal(np.unique(pixels(data).reshape(-1, 3), axis=0), [[255, 0, 0]])


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_photograph_is_set_upright(orientation: int, kind: str) -> None:
    upright = picture(48, 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    photograph = images.decode(encoded(TURNED[orientation](upright), kind, exif=exif, **options), LIMIT, SIDE)
    assert (photograph.height, photograph.width) == (48, 80)
    assert np.abs(photograph.rgb.astype(int) - upright).mean() < (3 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize(
    "exif", [b"garbage", b"MM\0*\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02ab"]
)
def test_broken_exif_does_not_cost_the_photograph(exif: bytes) -> None:
    assert pixels(encoded(picture(), "JPEG", exif=b"Exif\0\0" + exif)).shape == (37, 53, 3)


@pytest.mark.parametrize("width, height", [(20_000, 20_000), (65_535, 65_535), (2**31 - 1, 1), (1, LIMIT + 1)])
def test_a_bomb_is_rejected_by_its_header(width: int, height: int) -> None:
    started = time.perf_counter()
    with pytest.raises(RejectedImage, match=f"^{width}x{height} pixels are over the limit of max_pixels = 100000000$"):
        pixels(png_header(width, height))
    assert time.perf_counter() - started < 1


def test_a_whole_bomb_is_rejected_without_decoding() -> None:
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(2501) * 1000) for _ in range(20)) + rows.flush()
    chunk = b"IDAT" + packed
    bomb = png_header(20_000, 20_000)[:-12] + struct.pack(">I", len(packed)) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IEND\xaeB`\x82"
    started = time.perf_counter()
    with pytest.raises(RejectedImage) as caught:
        pixels(bomb)
    assert caught.value.status == "rejected" and time.perf_counter() - started < 1
    with Image.open(io.BytesIO(bomb)) as whole:
        whole.verify()  # nothing but the limit speaks against it


def test_the_limit_itself_is_allowed() -> None:
    assert images.decode(encoded(picture()), 37 * 53, SIDE).height == 37
    with pytest.raises(RejectedImage):
        images.decode(encoded(picture()), 37 * 53 - 1, SIDE)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 500), (500, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_thin_images(height: int, width: int, kind: str) -> None:
    photograph = images.decode(encoded(picture(height, width), kind), LIMIT, SIDE)
    assert (photograph.height, photograph.width) == (height, width)
    assert photograph.rgb.shape == (min(height, SIDE), min(width, SIDE), 3)


@pytest.mark.parametrize("height, width, shape", [
    (2000, 3000, (683, 1024)),
    (2049, 2050, (1024, 1024)),  # a half of it is square
    (1030, 1025, (1024, 1019)),
    (300, 4100, (75, 1024)),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_image_is_scored_small_and_keeps_its_full_size(
    height: int, width: int, shape: tuple[int, int], kind: str
) -> None:
    whole = picture(height, width)
    photograph = images.decode(encoded(whole, kind), LIMIT, SIDE)
    assert (photograph.height, photograph.width) == (height, width)
    assert photograph.rgb.shape == (*shape, 3)
    smooth = photograph.rgb[..., :2].astype(int) - np.asarray(Image.fromarray(whole).resize(shape[::-1]))[..., :2]
    assert np.abs(smooth).mean() < 3


def test_a_large_turned_jpeg_keeps_its_full_upright_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = images.decode(encoded(picture(2049, 2050), "JPEG", exif=exif), LIMIT, SIDE)
    assert (photograph.height, photograph.width) == (2050, 2049)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 255))
def test_a_mask_survives_its_codec(height: int, width: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    data = images.encode_mask(labels)
    assert np.array_equal(images.decode_mask(data), labels)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image.convert("RGB")), palette()[labels])


def test_the_palette_is_that_of_pascal_voc() -> None:
    assert palette()[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_mask_keeps_its_indices_whatever_its_colours(bits: int) -> None:
    labels = (np.arange(20) % 2**bits).astype(np.uint8).reshape(4, 5)
    image = Image.fromarray(labels)
    image.putpalette([7, 7, 7] * 2**bits)
    assert np.array_equal(images.decode_mask(encoded(image, bits=bits)), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_a_grey_mask_holds_ids(dtype: type) -> None:
    labels = np.array([[0, 1], [1, 0]], dtype)
    assert np.array_equal(images.decode_mask(encoded(labels)), labels.astype(np.uint8))


@pytest.mark.parametrize("data, reason", [
    (b"", "cannot be decoded"),
    (b"no mask", "cannot be decoded"),
    (images.encode_mask(np.zeros((9, 9), np.uint8))[:-30], "cannot be decoded"),
    (encoded(picture()), r"truth is a RGB image; it must hold a class id a pixel \(mode P or L\)"),
    (encoded(np.array([[0, 256]], np.uint16)), "truth holds id 256; ids are 0 to 255"),
    (encoded(np.array([[0, -1]], np.int32), "TIFF"), "truth holds id -1; ids are 0 to 255"),
    (encoded(np.zeros((2, 2), np.float32), "TIFF"), "truth is a F image"),
])  # fmt: skip
def test_a_truth_that_cannot_be_used_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(TruthError, match=reason):
        images.decode_mask(data)


def test_a_truth_of_another_size_is_not_even_decoded() -> None:
    started = time.perf_counter()
    with pytest.raises(TruthError, match="truth is 60000x60000, the image is 5x4"):
        images.decode_mask(png_header(60_000, 60_000), (4, 5))
    assert time.perf_counter() - started < 1


def test_labels_are_enlarged_by_the_nearest_pixel() -> None:
    labels = np.array([[1, 2], [3, 4]], np.uint8)
    assert np.array_equal(images.enlarge_labels(labels, (4, 6)), labels.repeat(2, 0).repeat(3, 1))
    assert images.enlarge_labels(labels, (2, 2)) is labels


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 90), st.integers(1, 90))
def test_enlarged_labels_are_labels_that_were_there(h: int, w: int, height: int, width: int) -> None:
    labels = np.random.default_rng(h * w).choice([3, 200], (h, w)).astype(np.uint8)
    enlarged = images.enlarge_labels(labels, (height, width))
    assert enlarged.shape == (height, width) and set(np.unique(enlarged)) <= set(np.unique(labels))


def test_an_overlay_leaves_the_background_clear_and_draws_edges() -> None:
    labels = np.zeros((6, 6), np.uint8)
    labels[:, 3:] = 15
    shown = images.overlay(np.full((6, 6, 3), 100, np.uint8), labels, opacity=0.5)
    assert (shown[:, :3] == 100).all()
    assert (shown[:, 3] == 255).all()
    assert (shown[:, 4:] == (palette()[15].astype(int) + 100) // 2).all()
