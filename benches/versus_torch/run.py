"""Compares this project with PyTorch on the same CPU, alternating the two programs in one run.

Each workload is measured in several rounds; a round runs our program once and every PyTorch
variant once, each in a fresh process, in an order that rotates from round to round. What disturbs
the machine for a while so disturbs all of them. See README.md.

This process itself stays small (it never loads PyTorch): Linux lets a child's largest resident set
start at its parent's.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / "target" / "release" / "sld"
PAIRS = ("wrn_16_2:wrn_16_1", "resnet56:resnet20", "wrn_40_2:wrn_16_2", "resnet32x4:resnet8x4")
OURS = "ours"
BEFORE = "ours before"
SIDE = 32
BURN = "burn flex"
BURN_PROGRAM = HERE.parent / "versus_burn" / "target" / "release" / "versus-burn"
BURN_WORKLOAD = ["--vanilla", "resnet20"]

# By default glibc gives large freed blocks back to the kernel and faults them in again in the next
# step. PyTorch gains from not doing so; a user can set the same, so it counts as a variant.
RETAIN = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
# Variant: the worker's variant and what is added to its environment.
VARIANTS = {
    "plain": ("plain", {}),
    "channels_last": ("channels_last", {}),
    "channels_last_retain": ("channels_last", RETAIN),
    "compiled": ("compiled", {}),
    "compiled_retain": ("compiled", RETAIN),
}


class WorkloadFailed(Exception):
    """A program that ended without a result; the message says which and how."""


@dataclass
class Series:
    """What one program did on one workload, over all rounds."""

    times_ms: list = field(default_factory=list)
    peak_bytes: int = 0
    images: int = 0
    import_bytes: int = 0

    def add(self, result):
        self.times_ms += result["times_ms"]
        self.peak_bytes = max(self.peak_bytes, result["peak_bytes"])
        self.import_bytes = max(self.import_bytes, result.get("import_bytes", 0))
        self.images = result["images"]

    @property
    def median(self):
        return statistics.median(self.times_ms)

    @property
    def minimum(self):
        return min(self.times_ms)


def run_program(command, environment):
    """Runs a command whose last line is the JSON result."""
    try:
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True
        )
    except OSError as error:
        raise WorkloadFailed(f"{command[0]}: {error.strerror}") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise WorkloadFailed(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    try:
        result = json.loads(lines[-1])
        if not result["times_ms"] or result["peak_bytes"] < 0 or result["images"] < 1:
            raise ValueError("no times or images in it")
        return result
    except (ValueError, KeyError, TypeError) as error:
        raise WorkloadFailed(
            f"{' '.join(command)}: the last line is not a result ({error!r}): {lines[-1][:200]}"
        ) from error


def commands(arguments, workload):
    """The command and environment of every program that is to run a workload."""
    common = ["--batch", str(arguments.batch), "--threads", str(arguments.threads)]
    common += ["--iterations", str(arguments.iterations)]
    # Left out where it is the default: builds before pictures of other sizes do not know it.
    images = ["--side", str(arguments.side)] if arguments.side != SIDE else []
    programs = {}
    if not arguments.torch_only:
        programs[OURS] = ([str(arguments.program), "bench", "step", *workload, *images, *common, "--json"], {})
        if arguments.before:
            programs[BEFORE] = ([str(arguments.before), *programs[OURS][0][1:]], {})
    if arguments.burn and workload == BURN_WORKLOAD:
        programs[BURN] = ([str(arguments.burn), *common, "--json"], {})
    threads = {"OMP_NUM_THREADS": str(arguments.threads)}
    for name in arguments.variants:
        variant, environment = VARIANTS[name]
        command = [sys.executable, str(HERE / "worker.py"), *workload, *images, *common, "--variant", variant]
        programs[f"torch {name}"] = (command, {**threads, **environment})
    return programs


def measure(arguments, title, workload):
    """Alternates the programs over the rounds; returns a series for each."""
    programs = commands(arguments, workload)
    series = {name: Series() for name in programs}
    order = list(programs)
    for index in range(arguments.rounds):
        shift = index % len(order)
        for name in order[shift:] + order[:shift]:
            show_progress(f"{title}: round {index + 1}, {name}")
            series[name].add(run_program(*programs[name]))
    show_progress("")
    return series


def show_progress(line):
    """Overwrites one line on a terminal; says nothing into a file."""
    if sys.stderr.isatty():
        print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)


def report(title, series, is_eval):
    """Prints one workload's table and the ratio to the best PyTorch variant."""
    print(f"\n{title}")
    print(f"  {'':28}{'median ms':>11}{'minimum ms':>12}{'peak MiB':>10}", end="")
    print(f"{'images/s':>10}" if is_eval else "")
    for name, one in series.items():
        print(f"  {name:28}{one.median:11.1f}{one.minimum:12.1f}", end="")
        print(f"{one.peak_bytes / 2**20:10.0f}", end="")
        print(f"{one.images / one.median * 1e3:10.0f}" if is_eval else "")
    theirs = {name: one for name, one in series.items() if name.startswith("torch")}
    if not theirs:
        return
    best = min(theirs, key=lambda name: theirs[name].median)
    fastest = min(theirs, key=lambda name: theirs[name].minimum)
    imported = theirs[best].import_bytes / 2**20
    print(f"  (of PyTorch's peak, {imported:.0f} MiB are the library itself, loaded)")
    if OURS not in series:
        print(f"  best PyTorch variant: {best} by median, {fastest} by minimum")
        return
    ours = series[OURS]
    median, minimum = ours.median / theirs[best].median, ours.minimum / theirs[fastest].minimum
    print(f"  ours/PyTorch: {median:.2f} of the median ({best}), ", end="")
    print(f"{minimum:.2f} of the minimum ({fastest})")
    if BEFORE in series:
        before = series[BEFORE]
        print(f"  ours before/PyTorch: {before.median / theirs[best].median:.2f} of the median, ", end="")
        print(f"{before.minimum / theirs[fastest].minimum:.2f} of the minimum; ours/before: ", end="")
        print(f"{ours.median / before.median:.2f}, {ours.minimum / before.minimum:.2f}")
    if BURN in series:
        print(f"  ours/burn: {ours.median / series[BURN].median:.2f} of the median")
    if is_eval:
        print(f"  images a second, ours over PyTorch's: {1 / median:.2f} (median)")


def cpu_name():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def pytorch_version():
    """What PyTorch says of itself, asked in a process of its own."""
    question = "import torch; print('PyTorch', torch.__version__, end=', oneDNN ');"
    question += "print('on' if torch.backends.mkldnn.is_available() else 'off')"
    asked = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    if asked.returncode != 0:
        requirements = HERE / "requirements.txt"
        sys.exit(f"{sys.executable} has no PyTorch: pip install -r {requirements}\n{asked.stderr}")
    return asked.stdout.strip()


def verified(fixtures, models):
    """Runs verify.py with the networks to be measured; returns whether nothing failed."""
    sys.stdout.flush()
    command = [sys.executable, str(HERE / "verify.py"), "--models", *models]
    command += ["--fixtures", str(fixtures)] if fixtures else []
    return subprocess.run(command).returncode == 0


def print_setting(arguments):
    if arguments.torch_only:
        ours = "not run"
    else:
        try:
            command = [str(arguments.program), "--version"]
            ours = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        except OSError as error:
            sys.exit(
                f"{arguments.program}: {error.strerror}\n"
                "build it with `cargo build --release -p sld`, or give --program or --torch-only"
            )
    print(f"ours {ours or 'of unknown version'}; {pytorch_version()}; ", end="")
    print(f"Python {platform.python_version()}")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{cpu_name()}, {os.cpu_count()} cores, load before the run {load}; {platform.system()}")
    print(f"batch {arguments.batch} of {arguments.side}x{arguments.side}, f32, {arguments.threads} threads, ", end="")
    print(f"{arguments.rounds} rounds of {arguments.iterations} iterations")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--pairs", nargs="*", metavar="TEACHER:STUDENT", help="SLD steps (default: the four pairs)"
    )
    parser.add_argument("--vanilla", nargs="*", metavar="MODEL", help="default: resnet20")
    parser.add_argument("--eval", nargs="*", metavar="MODEL", help="default: resnet20")
    parser.add_argument("--gate", action="store_true", help="SLD with the swapped-student term")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=SIDE, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=10, help="timed, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=["plain", "channels_last", "channels_last_retain"],
    )
    parser.add_argument("--program", type=Path, default=PROGRAM, help="our program")
    parser.add_argument("--before", type=Path, metavar="PROGRAM", help="another build of it, to compare with")
    parser.add_argument(
        "--burn",
        type=Path,
        nargs="?",
        const=BURN_PROGRAM,
        help="include ../versus_burn, once built, in vanilla training of resnet20",
    )
    parser.add_argument("--torch-only", action="store_true", help="leave our program out")
    parser.add_argument("--fixtures", type=Path, help="folder for the check")
    parser.add_argument("--no-verify", action="store_true", help="skip the check of the PyTorch side")
    parser.add_argument("--json", type=Path, help="also write every single time here")
    arguments = parser.parse_args()
    if arguments.pairs is arguments.vanilla is arguments.eval is None:
        arguments.pairs, arguments.vanilla, arguments.eval = PAIRS, ["resnet20"], ["resnet20"]
    for pair in arguments.pairs or []:
        if pair.count(":") != 1:
            parser.error(f"--pairs takes TEACHER:STUDENT, not {pair!r}")
    return arguments


def main():
    arguments = parse()
    print_setting(arguments)
    models = [model for pair in arguments.pairs or [] for model in pair.split(":")]
    models = dict.fromkeys([*models, *(arguments.vanilla or []), *(arguments.eval or [])])
    if not arguments.no_verify and not verified(arguments.fixtures, models):
        sys.exit("the PyTorch side does not compute what it should; nothing was measured")
    workloads = []
    for pair in arguments.pairs or []:
        teacher, student = pair.split(":")
        gate = ["--gate"] if arguments.gate else []
        title = f"SLD step, {teacher} -> {student}{', gate open' if gate else ''}"
        workloads.append((title, ["--teacher", teacher, "--student", student, *gate], False))
    for model in arguments.vanilla or []:
        workloads.append((f"vanilla training step, {model}", ["--vanilla", model], False))
    for model in arguments.eval or []:
        workloads.append((f"evaluation, {model}", ["--eval", model], True))

    results, failed = {}, False
    for title, workload, is_eval in workloads:
        try:
            series = measure(arguments, title, workload)
        except WorkloadFailed as error:
            print(f"\n{title}: FAILED\n{error}")
            failed = True
            continue
        report(title, series, is_eval)
        results[title] = {name: vars(one) for name, one in series.items()}
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
