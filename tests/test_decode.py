"""One decode function: everything that Pillow opens becomes the same kind of array, or a reason."""

import contextlib
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from podium.data import jpeg
from podium.data.decode import UndecodableImageError, decode, open_image
from podium.data.ids import list_images
from podium.data.jpeg import IncompleteJpegError, check_last_scan, expose_missing_end

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
END = b"\xff\xd9"


def make_photo(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """Smooth shapes with grain, as in a photograph: neighbouring blocks differ."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    grain = draw.normal(0, 6, smooth.shape)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def save(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


JPEGS = {
    "420": save(make_photo(), "JPEG"),
    "444": save(make_photo(), "JPEG", subsampling=0, quality=95),
    "optimized": save(make_photo(), "JPEG", optimize=True, quality=40),
    "restarts": save(make_photo(), "JPEG", restart_marker_blocks=3),
    "grey": save(make_photo().convert("L"), "JPEG"),
    "cmyk": save(make_photo().convert("CMYK"), "JPEG"),
    "progressive": save(make_photo(), "JPEG", progressive=True),
    "progressive grey": save(make_photo().convert("L"), "JPEG", progressive=True),
}


def is_complete(content: bytes) -> bool:
    try:
        decode(content, 32)
        check_last_scan(content)
    except (UndecodableImageError, IncompleteJpegError):
        return False
    return True


@pytest.mark.parametrize("kind", JPEGS)
def test_complete_jpeg_keeps_every_pixel(kind: str) -> None:
    content = JPEGS[kind]
    check_last_scan(content)
    for trailing in (b"", b"junk behind the end"):
        for size in ((1, 1), (32, 32), (4096, 4096)):
            plain = Image.open(io.BytesIO(content))
            checked = Image.open(io.BytesIO(expose_missing_end(content + trailing)))
            plain.draft("RGB", size)
            checked.draft("RGB", size)
            assert np.array_equal(np.asarray(plain), np.asarray(checked))


@pytest.mark.parametrize("kind", JPEGS)
@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1))
def test_cut_jpeg_with_its_end_marker_back_is_refused(kind: str, share: float) -> None:
    content = JPEGS[kind]
    start = content.index(b"\xff\xda") + 12
    # A cut within the last two 8 x 8 blocks passes: at most some ten bytes.
    end = len(content) - len(END) - 16
    cut = content[: start + round(share * (end - start))]
    assert not is_complete(cut + END)
    assert not is_complete(cut)


def test_pillow_alone_accepts_the_cut_jpeg() -> None:
    """Why the check exists; when this fails, Pillow does it by itself."""
    cut = JPEGS["420"][: len(JPEGS["420"]) // 2] + END
    pixels = np.asarray(Image.open(io.BytesIO(cut)))
    assert (pixels[-16:] == 128).all()


def test_end_marker_missing_behind_complete_data_is_no_loss() -> None:
    content = JPEGS["420"]
    assert np.array_equal(decode(content[: -len(END)], 64), decode(content, 64))


def test_whole_scans_missing_from_progressive_jpeg_are_named() -> None:
    content = JPEGS["progressive"]
    third_scan = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"][2]
    with pytest.raises(UndecodableImageError, match="only 2 scans"):
        decode(content[:third_scan] + END, 64)


def test_last_scan_check_leaves_one_scan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded_again(content: bytes) -> bytes:
        raise AssertionError("decoded twice")

    monkeypatch.setattr(jpeg, "_decode_pixels", decoded_again)
    check_last_scan(JPEGS["420"])


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated_file_of_other_formats_is_refused(file_format: str) -> None:
    content = save(make_photo(), file_format)
    with pytest.raises(UndecodableImageError):
        decode(content[: len(content) * 2 // 3], 32)


def test_truncated_png_with_its_end_chunk_back_is_refused() -> None:
    content = save(make_photo(), "PNG")
    with pytest.raises(UndecodableImageError):
        decode(content[: len(content) // 2] + content[-12:], 32)


def test_empty_and_foreign_files_are_named() -> None:
    with pytest.raises(UndecodableImageError, match="0 bytes"):
        decode(b"", 32)
    for content in (b"hello", b"\xff\xd8", b"\xff\xd8\xff", b"%!PS-Adobe-3.0", JPEGS["420"][:30]):
        with pytest.raises(UndecodableImageError):
            decode(content, 32)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_damaged_bytes_give_pixels_or_a_reason(seed: int) -> None:
    draw = random.Random(seed)
    content = bytearray(draw.choice([*JPEGS.values(), save(make_photo(40, 30), "PNG")]))
    for _ in range(draw.randint(1, 20)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    with contextlib.suppress(UndecodableImageError):
        assert decode(bytes(content), 32).shape == (32, 32, 3)


def test_bomb_is_refused_from_its_header() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(UndecodableImageError, match="30000 x 30000"):
        decode(content, 32)


def test_cmyk_is_close_to_its_rgb() -> None:
    difference = decode(JPEGS["cmyk"], 32).astype(int) - decode(JPEGS["444"], 32)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize(
    ("file_format", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")]
)
def test_sixteen_bits_are_scaled_to_eight(file_format: str, dtype: str) -> None:
    values = np.linspace(0, 65535, 48 * 48).reshape(48, 48).astype(np.uint16)
    mode = "I;16" if dtype == "<u2" else "I;16B"
    image = Image.frombytes(mode, (48, 48), values.astype(dtype).tobytes())
    pixels = decode(save(image, file_format), 48)
    assert np.array_equal(pixels[..., 0], (values.astype(np.uint32) + 128) // 257)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_float_samples_are_refused_with_their_range() -> None:
    content = save(Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)), "TIFF")
    with pytest.raises(UndecodableImageError, match="expected 8 or 16 bits"):
        decode(content, 8)


def test_palette_alpha_grey_and_bits_become_rgb() -> None:
    photo = make_photo(32, 32)
    palette = photo.convert("P", palette=Image.Palette.ADAPTIVE)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(decode(save(palette, "PNG"), 32), expected)
    grey = photo.convert("L")
    stacked = np.stack([np.asarray(grey)] * 3, axis=2)
    assert np.array_equal(decode(save(grey, "PNG"), 32), stacked)
    bits = photo.convert("1")
    assert set(np.unique(decode(save(bits, "PNG"), 32))) <= {0, 255}


def test_transparent_pixels_are_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode(save(clear, "PNG"), 8) == 255).all()
    half = Image.new("LA", (8, 8), (0, 128))
    assert np.abs(decode(save(half, "PNG"), 8).astype(int) - 127).max() <= 1
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert (decode(save(palette, "PNG", transparency=1), 8) == 255).all()
    keyed = Image.new("RGB", (8, 8), (1, 2, 3))
    assert (decode(save(keyed, "PNG", transparency=(1, 2, 3)), 8) == 255).all()


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_counts(file_format: str) -> None:
    first, second = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = save(first, file_format, save_all=True, append_images=[second], **options)
    assert (decode(content, 16) == (255, 0, 0)).all()


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_rotated_twin_gives_the_same_pixels(orientation: int) -> None:
    photo = make_photo(64, 48)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turned = photo.transpose(TURNS[orientation])
    upright = decode(save(photo, "PNG"), 32)
    for file_format in ("PNG", "TIFF"):
        assert np.array_equal(decode(save(turned, file_format, exif=exif), 32), upright)
    # JPEG: drafted, compressed in another orientation, so near and not equal.
    large, quality = make_photo(640, 480), {"quality": 95, "subsampling": 0}
    twin = save(large.transpose(TURNS[orientation]), "JPEG", exif=exif, **quality)
    straight = save(large, "JPEG", **quality)
    difference = decode(twin, 64).astype(int) - decode(straight, 64)
    assert np.abs(difference).mean() < 1.0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # pytest undoes the module's own filter
def test_broken_exif_counts_as_upright() -> None:
    content = save(make_photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert np.array_equal(decode(content, 32), decode(JPEGS["420"], 32))


def test_picture_of_two_jpegs_gives_the_first() -> None:
    content = save(make_photo(), "MPO", save_all=True, append_images=[make_photo(seed=1)])
    assert np.array_equal(decode(content, 64), decode(JPEGS["420"], 64))


def test_draft_never_goes_below_the_size() -> None:
    image = open_image(save(make_photo(640, 480), "JPEG"))
    image.draft("RGB", (64, 64))
    assert min(image.size) >= 64


@pytest.mark.parametrize("name", ["lemon", "crowd"])
def test_no_false_alarm_on_real_images(name: str) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"real data {name} is not on this machine")
    for file in list_images(REAL / name)[::5]:
        decode((REAL / name / file).read_bytes(), 64)


def test_cut_real_photo_is_refused_at_any_place() -> None:
    if not (REAL / "crowd").is_dir():
        pytest.skip("real data crowd is not on this machine")
    content = (REAL / "crowd" / list_images(REAL / "crowd")[0]).read_bytes()
    progressive = save(Image.open(io.BytesIO(content)), "JPEG", progressive=True)
    draw = random.Random(0)
    for whole, times in ((content, 60), (progressive, 12)):
        assert is_complete(whole)
        for _ in range(times):
            cut = whole[: draw.randrange(1000, len(whole) - 20)]
            assert not is_complete(cut + END)
