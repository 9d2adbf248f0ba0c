#!/usr/bin/env python3
"""Makes the golden inputs and tensors of this folder. Run once; the files are committed.

    cargo build --release -p eyas-shared --example pixels
    python3 tests/golden/pixels/make.py target/release/examples/pixels

Needs numpy and Pillow 11.3.0 (Pillow 13.0.0 resizes rows before columns in some cases).
`--keep-inputs` leaves the input files alone and makes the other files anew. boxes.txt holds
SHA-256 sums of the samples of rgb8.png after Pillow's resize of a part of it.

For lossless inputs the expected tensors are computed here, with numpy and Pillow's resize,
independently of Eyas. For JPEG and lossy WebP the decoded pixels are Eyas' own (decoders
of lossy formats may differ by a few levels); they are compared with Pillow's here.
"""
import hashlib, io, pathlib, struct, subprocess, sys, zlib
import numpy as np
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 53, 41
SPECS = [("bilinear", 32, 32), ("bicubic", 28, 24)]
MEAN = np.float32([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = np.float32([0.229, 0.224, 0.225]).reshape(3, 1, 1)
# Another inverse DCT and another rounding of the colors.
LOSSY_TOLERANCE = 3
# Left, top, right, bottom, width, height: whole, enlarged, one axis only, fractional, a sliver.
BOXES = [(0, 0, 53, 41, 20, 20), (0, 0, 53, 41, 97, 83), (0, 0, 53, 41, 53, 17),
         (0, 0, 53, 41, 19, 41), (0, 0, 53, 41, 53, 41), (5, 3, 37, 35, 32, 32),
         (3.3, 7.25, 49.9, 30.1, 16, 16), (10.1, 0.7, 12.6, 40.2, 40, 9), (0, 0, 0.5, 41, 8, 8)]
FULL = ["420.jpg", "rgba8.png"]


def picture(width, height, channels, levels):
    """Gradients, a hard-edged disc and stripes: every corner looks different."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x / width, y / height, (x + y) / (width + height), 1 - y / height]
    image = np.stack(planes[:channels], -1)
    disc = (x - width * 0.3) ** 2 + (y - height * 0.4) ** 2 < (height * 0.25) ** 2
    image[disc] = 1 - image[disc]
    image[:, -6::2, 0] = 0.9
    return np.round(image * (levels - 1))


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples, bits, color, before=(), interlaced=False):
    """A PNG of any kind; Pillow does not write them all."""
    height, width, channels = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
                  (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for x0, y0, dx, dy in passes:
        for row in samples[y0::dy, x0::dx]:
            if bits == 16:
                body = row.astype(">u2").tobytes()
            elif bits == 8:
                body = row.astype("u1").tobytes()
            else:
                digits = "".join(format(int(v), f"0{bits}b") for v in row.ravel())
                digits += "0" * (-len(digits) % 8)
                body = bytes(int(digits[i:i + 8], 2) for i in range(0, len(digits), 8))
            rows += b"\0" + body
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, int(interlaced))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + b"".join(chunk(kind, body) for kind, body in before)
            + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def over_white(rgb, alpha):
    rgb, alpha = rgb.astype(np.int64), alpha.astype(np.int64)[..., None]
    return ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def to_8_bits(samples):
    return ((samples.astype(np.int64) + 128) // 257).astype(np.uint8)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def renumbered(jpeg):
    """Components R, G, B become 1, 2, 3: only the Adobe marker tells that they are RGB."""
    jpeg = bytearray(jpeg)
    for marker, first, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):
        at = jpeg.index(marker) + first
        for i in range(3):
            assert jpeg[at + step * i] == b"RGB"[i]
            jpeg[at + step * i] = i + 1
    return bytes(jpeg)


def with_adobe_transform(jpeg, transform):
    """The same data, said to be YCCK (2) instead of CMYK (0)."""
    jpeg = bytearray(jpeg)
    jpeg[jpeg.index(b"Adobe") + 11] = transform
    return bytes(jpeg)


def inputs():
    """File name -> (bytes, expected 8-bit RGB pixels or None for lossy files)."""
    files = {}
    rgb = picture(WIDTH, HEIGHT, 3, 256).astype(np.uint8)
    rgb_image = Image.fromarray(rgb)
    gray = rgb[..., 0]
    jpeg = lambda image, **options: (saved(image, "JPEG", quality=90, **options), None)
    files["420.jpg"] = jpeg(rgb_image, subsampling=2)
    files["422.jpg"] = jpeg(rgb_image, subsampling=1)
    files["444.jpg"] = jpeg(rgb_image, subsampling=0)
    files["restart.jpg"] = jpeg(rgb_image, subsampling=2, restart_marker_blocks=2)
    files["progressive.jpg"] = jpeg(rgb_image, subsampling=2, progressive=True)
    files["gray.jpg"] = jpeg(Image.fromarray(gray))
    files["rgb.jpg"] = jpeg(rgb_image, keep_rgb=True)
    files["rgb-123.jpg"] = (renumbered(files["rgb.jpg"][0]), None)
    cmyk = picture(WIDTH, HEIGHT, 4, 256).astype(np.uint8)
    files["cmyk.jpg"] = jpeg(Image.fromarray(cmyk, "CMYK"))
    files["ycck.jpg"] = (with_adobe_transform(files["cmyk.jpg"][0], 2), None)
    for turn in range(1, 9):
        upright = rgb_image.resize((29, 17))
        files[f"exif{turn}.jpg"] = jpeg(upright, exif=exif(turn), subsampling=0)
        stored = Image.open(io.BytesIO(saved(upright, "PNG", exif=exif(turn))))
        files[f"exif{turn}.png"] = (saved(upright, "PNG", exif=exif(turn)),
                                    np.asarray(ImageOps.exif_transpose(stored)))
    turned = np.asarray(ImageOps.exif_transpose(
        Image.open(io.BytesIO(saved(rgb_image, "PNG", exif=exif(6))))))
    files["exif6.webp"] = (saved(rgb_image, "WEBP", lossless=True, exif=exif(6)), turned)

    spread = lambda plane: np.stack([plane] * 3, -1)
    rgba = picture(WIDTH, HEIGHT, 4, 256).astype(np.uint8)
    wide = picture(WIDTH, HEIGHT, 4, 65536).astype(np.int64)
    narrow = to_8_bits(wide)
    palette = np.random.default_rng(7).integers(0, 256, (16, 3)).astype(np.uint8)
    alphas = np.uint8([0, 255, 17, 128, 200])
    index = picture(WIDTH, HEIGHT, 1, 16)
    index_alpha = np.append(alphas, [255] * 11)
    index_rgb = palette[index[..., 0].astype(int)]
    looked_up = over_white(index_rgb, index_alpha[index[..., 0].astype(int)])
    plte = (b"PLTE", palette.tobytes())
    files["rgb8.png"] = (saved(rgb_image, "PNG"), rgb)
    files["rgb8-interlaced.png"] = (png(rgb, 8, 2, interlaced=True), rgb)
    files["rgb16.png"] = (png(wide[..., :3], 16, 2), narrow[..., :3])
    files["rgba8.png"] = (png(rgba, 8, 6), over_white(rgba[..., :3], rgba[..., 3]))
    files["rgba16.png"] = (png(wide, 16, 6), over_white(narrow[..., :3], narrow[..., 3]))
    files["gray8.png"] = (png(gray[..., None], 8, 0), spread(gray))
    files["gray16.png"] = (png(wide[..., :1], 16, 0), spread(narrow[..., 0]))
    bit = (gray[..., None] > 99).astype(np.uint8)
    files["gray1.png"] = (png(bit, 1, 0), spread(bit[..., 0] * 255))
    files["gray-alpha8.png"] = (png(rgba[..., :2], 8, 4),
                                over_white(spread(rgba[..., 0]), rgba[..., 1]))
    files["palette.png"] = (png(index, 4, 3, [plte]), index_rgb)
    files["palette-alpha.png"] = (png(index, 4, 3, [plte, (b"tRNS", alphas.tobytes())]), looked_up)
    files["lossless.webp"] = (saved(rgb_image, "WEBP", lossless=True), rgb)
    files["lossless-alpha.webp"] = (
        saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True),
        over_white(rgba[..., :3], rgba[..., 3]))
    files["lossy.webp"] = (saved(rgb_image, "WEBP", quality=80), None)
    files["lossy-alpha.webp"] = (saved(Image.fromarray(rgba), "WEBP", quality=80), None)
    return files


def tensor(rgb, filter_name, shorter, crop):
    """The steps of PREPROCESSING.md, after decoding."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    width, height = image.size
    longer = int(shorter * max(width, height) / min(width, height))
    size = (shorter, longer) if width <= height else (longer, shorter)
    image = image.resize(size, getattr(Image.Resampling, filter_name.upper()))
    left, top = round((size[0] - crop) / 2.0), round((size[1] - crop) / 2.0)
    image = image.crop((left, top, left + crop, top + crop))
    chw = np.asarray(image).transpose(2, 0, 1).astype(np.float32)
    return ((chw / np.float32(255) - MEAN) / STD).astype("<f4").tobytes()


def eyas_pixels(example, path):
    out = subprocess.run([example, "decode", path], check=True, stdout=subprocess.PIPE).stdout
    width, height = struct.unpack_from("<II", out)
    return np.frombuffer(out, np.uint8, width * height * 3, 8).reshape(height, width, 3)


def pillow_pixels(path):
    image = ImageOps.exif_transpose(Image.open(path))
    if "A" in image.getbands():
        rgba = np.asarray(image.convert("RGBA"))
        return over_white(rgba[..., :3], rgba[..., 3])
    return np.asarray(image.convert("RGB"))


def main():
    example = sys.argv[1]
    lines = []
    for name, (data, pixels) in inputs().items():
        path = HERE / name
        if "--keep-inputs" not in sys.argv:
            path.write_bytes(data)
        source = "numpy"
        if pixels is None:
            source = "eyas"
            pixels = eyas_pixels(example, path)
            distance = np.abs(pixels.astype(int) - pillow_pixels(path).astype(int))
            print(f"{name}: {distance.max()} levels from Pillow at most, {distance.mean():.3f} on average")
            assert distance.max() <= LOSSY_TOLERANCE, name
        for spec in SPECS:
            values = tensor(pixels, *spec)
            if name in FULL and spec is SPECS[1]:
                (HERE / f"{name}.f32").write_bytes(values)
            lines.append(f"{hashlib.sha256(values).hexdigest()} {name} {' '.join(map(str, spec))} {source}\n")
    rgb = Image.fromarray(picture(WIDTH, HEIGHT, 3, 256).astype(np.uint8))
    boxes = []
    for filter_name in ("bilinear", "bicubic"):
        for *box, width, height in BOXES:
            image = rgb.resize((width, height), getattr(Image.Resampling, filter_name.upper()), box=box)
            numbers = " ".join(map(str, [*box, width, height]))
            boxes.append(f"{hashlib.sha256(image.tobytes()).hexdigest()} {filter_name} {numbers}\n")
    (HERE / "boxes.txt").write_text("".join(boxes))
    (HERE / "tensors.txt").write_text("".join(lines))


main()
