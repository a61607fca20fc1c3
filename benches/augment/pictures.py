"""Pictures a second, from the file to both views of 224x224: torchvision with Pillow in one process, and this project
with one decoding thread.

    pip install torch torchvision pillow numpy
    python benches/augment/pictures.py FOLDER [--rounds 5]

FOLDER holds train/CLASS/*. The two are measured in alternation in the same run, over the same files in their cache.
Counted is the processor time of each process (of this project's all of it: start, listing and what was prepared
ahead included), so that what else the machine does matters less; times by the clock stand beside it.
A picture is decoded once; the weak view is RandomResizedCrop and flip, the strong one the same independently, two
RandAugment operations and Cutout, both as normalised float tensors.
"""

import argparse
import json
import pathlib
import random
import resource
import statistics
import subprocess
import time

import PIL
import torch
import torchvision
from torchvision import transforms
from torchvision.datasets.folder import IMG_EXTENSIONS, default_loader

from rate import OPERATIONS, ROOT
from PIL import ImageDraw

SIDE = 224
FRAME = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
TENSOR = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]


def randaugment(image):
    for operation, low, high in random.choices(OPERATIONS, k=2):
        image = operation(image, low + (high - low) * random.random())
    side = SIDE / 2 * random.random()
    x = int(max(0, random.uniform(SIDE, 1) - side / 2))
    y = int(max(0, random.uniform(SIDE, 1) - side / 2))
    image = image.copy()
    ImageDraw.Draw(image).rectangle((x, y, min(SIDE, x + side), min(SIDE, y + side)), (125, 123, 114))
    return image


WEAK = transforms.Compose(FRAME + TENSOR)
STRONG = transforms.Compose(FRAME + [randaugment] + TENSOR)


def torchvision_rate(paths):
    """Pictures in a second of processor time, and by the clock."""
    begin, clock = time.process_time(), time.perf_counter()
    for path in paths:
        image = default_loader(path)
        WEAK(image)
        STRONG(image)
    return len(paths) / (time.process_time() - begin), len(paths) / (time.perf_counter() - clock)


def own_rate(program, folder, threads, pictures):
    command = [program, "bench", "augment", "--data", folder, "--threads", str(threads), "--iterations", "2", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 2 * pictures / used, statistics.mean(json.loads(out)["pairs_per_second"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/sld")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted((options.folder / "train").rglob("*"))
    paths = [path for path in files if path.suffix.lower() in IMG_EXTENSIONS]
    torchvision_rate(paths[:50])
    peer, own, two = [], [], []
    for _ in range(options.rounds):
        peer.append(torchvision_rate(paths))
        own.append(own_rate(options.program, options.folder, 1, len(paths)))
        two.append(own_rate(options.program, options.folder, 2, len(paths)))
    print(f"{len(paths)} pictures; torchvision {torchvision.__version__}, Pillow {PIL.__version__}; "
          f"median (lowest to highest) of {options.rounds} rounds")
    for kind, place in ("a second of one core", 0), ("a second by the clock", 1):
        print(f"pictures {kind}:")
        base = [rates[place] for rates in peer]
        for name, rates in ("torchvision, one process", peer), ("sld, 1 thread", own), ("sld, 2 threads", two):
            rates = [pair[place] for pair in rates]
            middle = statistics.median(rates)
            print(f"  {name:<25} {middle:7,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
                  f"  {middle / statistics.median(base):4.1f} x, best to best {max(rates) / max(base):.1f} x")


if __name__ == "__main__":
    main()
