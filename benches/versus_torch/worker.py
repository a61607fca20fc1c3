"""Times one workload in PyTorch and prints the result as JSON on the last line.

`run.py` starts this once for every round, so that each measurement has a process of its own and
its peak memory is its own.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch

import models
import step

# The last two are for CUDA: the whole step captured in one graph, of eager or of compiled networks.
VARIANTS = ("plain", "channels_last", "compiled", "graph", "compiled_graph")


def peak_bytes():
    """The largest resident set of this process.

    Linux starts `ru_maxrss` at what the parent had before the exec; VmHWM is this program's alone.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def random_images(count, side, channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn(count, 3, side, side).contiguous(memory_format=layout)


def workload(arguments):
    """A function that does one iteration of what was asked for."""
    # Compilation is tried on the layout that is otherwise the faster one.
    channels_last = arguments.variant != "plain"

    def model(name):
        network = models.prepared(name, channels_last)
        return torch.compile(network) if arguments.variant.startswith("compiled") else network

    weak = random_images(arguments.batch, arguments.side, channels_last)
    target = torch.randint(0, 100, (arguments.batch,))
    if arguments.eval:
        network = model(arguments.eval).eval()

        def evaluate():
            with torch.inference_mode():
                network(weak)

        return evaluate
    if arguments.vanilla:
        network = model(arguments.vanilla).train()
        sgd = step.optimizer(network)
        return lambda: step.vanilla_step(network, sgd, weak, target)
    strong = random_images(arguments.batch, arguments.side, channels_last)
    student, teacher = model(arguments.student).train(), model(arguments.teacher).eval()
    sgd = step.optimizer(student)
    return lambda: step.sld_step(student, teacher, sgd, weak, strong, target, arguments.gate)


def on_cuda(iterate, autocast, captured, warmup):
    """The same iteration, waiting for the GPU at its end; captured in one CUDA graph if asked for."""

    def run():
        # A graph may not keep the weights that autocast has cached outside of it.
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast, cache_enabled=not captured):
            iterate()

    replay = captured_graph(run, warmup) if captured else run

    def wait():
        replay()
        torch.cuda.synchronize()

    return wait


def captured_graph(run, warmup):
    """What `run` does, as the replay of a CUDA graph, captured after runs on a stream of their own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--vanilla", metavar="MODEL", help="a step of plain training")
    what.add_argument("--eval", metavar="MODEL", help="a forward pass without gradients")
    what.add_argument("--teacher", metavar="MODEL", help="an SLD step, with --student")
    parser.add_argument("--student", metavar="MODEL")
    parser.add_argument("--gate", action="store_true", help="with the student's own swapped term")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=32, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3, help="untimed iterations before")
    parser.add_argument("--variant", choices=VARIANTS, default="channels_last")
    parser.add_argument(
        "--cuda", choices=("f32", "tf32", "amp"), help="on the GPU: exact, TF32, or bfloat16 autocast"
    )
    arguments = parser.parse_args()
    if arguments.teacher and not arguments.student:
        parser.error("--teacher needs --student")
    captured = arguments.variant.endswith("graph")
    if captured and not arguments.cuda:
        parser.error(f"--variant {arguments.variant} needs --cuda")

    torch.set_num_threads(arguments.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    if arguments.cuda:
        torch.set_default_device("cuda")
        torch.backends.cuda.matmul.allow_tf32 = arguments.cuda != "f32"
        torch.backends.cudnn.allow_tf32 = arguments.cuda != "f32"
        torch.backends.cudnn.benchmark = True
    imported = peak_bytes()
    iterate = workload(arguments)
    if arguments.cuda:
        iterate = on_cuda(iterate, arguments.cuda == "amp", captured, max(3, arguments.warmup))
    for _ in range(arguments.warmup):
        iterate()
    times = []
    for _ in range(arguments.iterations):
        start = time.perf_counter()
        iterate()
        times.append((time.perf_counter() - start) * 1e3)
    result = {
        "times_ms": times,
        "peak_bytes": peak_bytes(),
        "images": arguments.batch,
        "import_bytes": imported,
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
