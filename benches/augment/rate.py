"""Weak and strong pairs a second: Pillow in one process, and this project on one core and on two threads.

    pip install pillow numpy
    python benches/augment/rate.py [--rounds 5] [--seconds 2]

The two are measured in alternation in the same run, so that whatever else the machine does meets both.
Each pair is a padded crop and flip (weak), and an independent crop and flip, two RandAugment operations
and Cutout (strong), both normalised to float32.
"""

import argparse
import pathlib
import random
import re
import statistics
import subprocess
import time

import numpy
import PIL
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

ROOT = pathlib.Path(__file__).resolve().parents[2]
MEAN = numpy.array([0.5071, 0.4867, 0.4408], numpy.float32)
STD = numpy.array([0.2675, 0.2565, 0.2761], numpy.float32)


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


OPERATIONS = [
    (lambda image, v: ImageOps.autocontrast(image), 0, 1),
    (lambda image, v: ImageEnhance.Brightness(image).enhance(v), 0.05, 0.95),
    (lambda image, v: ImageEnhance.Color(image).enhance(v), 0.05, 0.95),
    (lambda image, v: ImageEnhance.Contrast(image).enhance(v), 0.05, 0.95),
    (lambda image, v: ImageOps.equalize(image), 0, 1),
    (lambda image, v: image, 0, 1),
    (lambda image, v: ImageOps.posterize(image, int(v)), 4, 8),
    (lambda image, v: image.rotate(v), -30, 30),
    (lambda image, v: ImageEnhance.Sharpness(image).enhance(v), 0.05, 0.95),
    (lambda image, v: affine(image, 1, v, 0, 0, 1, 0), -0.3, 0.3),
    (lambda image, v: affine(image, 1, 0, 0, v, 1, 0), -0.3, 0.3),
    (lambda image, v: ImageOps.solarize(image, v), 0, 256),
    (lambda image, v: affine(image, 1, 0, v * image.size[0], 0, 1, 0), -0.3, 0.3),
    (lambda image, v: affine(image, 1, 0, 0, 0, 1, v * image.size[1]), -0.3, 0.3),
]


def crop_flip(image):
    padded = ImageOps.expand(image, 4)
    left, top = random.randint(0, 8), random.randint(0, 8)
    view = padded.crop((left, top, left + 32, top + 32))
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else view


def randaugment(image):
    for operation, low, high in random.choices(OPERATIONS, k=2):
        image = operation(image, low + (high - low) * random.random())
    side = 16 * random.random()
    x = int(max(0, random.uniform(32, 1) - side / 2))
    y = int(max(0, random.uniform(32, 1) - side / 2))
    image = image.copy()
    ImageDraw.Draw(image).rectangle((x, y, min(32, x + side), min(32, y + side)), (125, 123, 114))
    return image


def tensor(image):
    return (numpy.asarray(image, numpy.float32) / 255 - MEAN) / STD


def photographs(count):
    """Images with structure at several scales."""
    generator = numpy.random.default_rng(0)
    y, x = numpy.mgrid[:32, :32]
    for _ in range(count):
        a, b = generator.uniform(0.02, 0.6, (2, 9, 1, 1))
        waves = numpy.sin(a * x + b * y + generator.uniform(0, 6.3, (9, 1, 1))) * generator.random((9, 1, 1))
        values = 127 + 50 * waves.reshape(3, 3, 32, 32).sum(1) + generator.normal(0, 8, (3, 32, 32))
        yield Image.fromarray(values.clip(0, 255).astype(numpy.uint8).transpose(1, 2, 0))


def pillow_rate(images, seconds):
    begin, pairs = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for image in random.choices(images, k=64):
            tensor(crop_flip(image))
            tensor(randaugment(crop_flip(image)))
        pairs += 64
    return pairs / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    build = ["cargo", "build", "--release", "-q", "-p", "sld", "--example", "augment_rate"]
    subprocess.run(build, cwd=ROOT, check=True)
    program = ROOT / "target/release/examples/augment_rate"
    images = list(photographs(2048))
    rates = {"Pillow, one process": [], "one core": [], "loader, 1 thread": [], "loader, 2 threads": []}
    for _ in range(options.rounds):
        rates["Pillow, one process"].append(pillow_rate(images, options.seconds))
        out = subprocess.run([program, str(options.seconds)], check=True, capture_output=True, text=True).stdout
        for name, rate in re.findall(r"^(\S.*?)\s+(\d+) pairs/s$", out, re.M):
            rates[name].append(float(rate))
    base = statistics.median(rates["Pillow, one process"])
    print(f"Pillow {PIL.__version__}; median (lowest to highest) of {options.rounds} rounds")
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = f"({min(values):,.0f} to {max(values):,.0f})"
        print(f"{name:<20} {middle:>9,.0f} pairs/s {spread:<22} {middle / base:5.1f} x Pillow")


if __name__ == "__main__":
    main()
