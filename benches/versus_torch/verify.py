"""Checks that this PyTorch program is the same network, loss and step as the reference's.

A comparison of speed means nothing if the two programs compute different things. Every check
runs in float64 against recorded values; exits with 1 if one fails.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

import formula
import models
import step

# Recorded in float64 unless said; those recorded in f32 can agree to f32 rounding only.
EXACT, ROUNDED = 1e-9, 5e-7
FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"


class Checks:
    """Counts comparisons and prints those that fail."""

    def __init__(self):
        self.passed = self.failed = 0

    def close(self, what, actual, expected, tolerance, floor=1e-9):
        """Relative error in the 2-norm; `floor` bounds the norm that it is relative to."""
        actual = torch.as_tensor(actual, dtype=torch.float64).detach()
        expected = torch.as_tensor(expected, dtype=torch.float64)
        error = (actual - expected).norm() / expected.norm().clamp(min=floor)
        self.true(f"{what}: relative error {error:.2e}", error <= tolerance)

    def true(self, what, condition):
        if condition:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED {what}")


def read(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


def sampled(tensor, count=32):
    """The elements that the larger fixtures keep of a tensor."""
    flat, n = tensor.reshape(-1), tensor.numel()
    if n <= count:
        return flat
    return flat[[j * (n - 1) // (count - 1) for j in range(count)]]


def check_generator(checks):
    expected = [-0.6727547645568848, -0.4260319471359253, -0.9819275140762329]
    checks.close("formula tensors", formula.tensor("abc", (3,)), expected, 1e-15)


def check_model(checks, name, folder):
    recorded, metadata = read(folder / f"{name}.safetensors")
    model = formula.fill(models.build(name), f"model/{name}")
    state = json.loads(metadata["state"])
    checks.true(f"{name}: names and order of the state", list(model.state_dict()) == state)
    sums = torch.stack([value.double().sum() for value in model.state_dict().values()])
    checks.close(f"{name}: formula weights", sums, recorded["weight_sum"], EXACT)

    x, target = formula.images(metadata["input_salt"], 4), recorded["target"]
    with torch.no_grad():
        logits = model.eval()(x.contiguous(memory_format=torch.channels_last))
    checks.close(f"{name}: eval logits in f32", logits, recorded["eval.logits_f64"], 1e-5)
    model.double()
    with torch.no_grad():
        logits = model(x.double())
    checks.close(f"{name}: eval logits", logits, recorded["eval.logits_f64"], EXACT)
    if "train.logits_f64" not in recorded:
        return
    logits = model.train()(x.double())
    loss = F.cross_entropy(logits, target)
    loss.backward()
    checks.close(f"{name}: train logits", logits, recorded["train.logits_f64"], EXACT)
    checks.close(f"{name}: cross entropy", loss, recorded["train.ce_f64"], EXACT)
    # Batch norm cancels some biases before it: their gradients are zero but for rounding.
    floor = 1e-4 * recorded["train.grad_l2_f64"].norm()
    for parameter, value in model.named_parameters():
        if f"grad/{parameter}" in recorded:
            actual, expected = value.grad, recorded[f"grad/{parameter}"]
        else:
            actual, expected = sampled(value.grad), recorded[f"grad_sample/{parameter}"]
        checks.close(f"{name}: gradient of {parameter}", actual, expected, ROUNDED, floor)
    for buffer, value in model.named_buffers():
        what = f"{name}: {buffer} after a training pass"
        checks.close(what, value, recorded[f"after/{buffer}"], 2e-6)


def check_loss(checks, folder):
    inputs, metadata = read(folder / "inputs.safetensors")
    recorded, _ = read(folder / "SLD.safetensors")
    for case in json.loads(metadata["cases"]):
        target = inputs[f"{case}/target"]
        views = {
            f"{who}_{view}": inputs[f"{case}/{who}_{view}"].double()
            for who in ("student", "teacher")
            for view in ("weak", "strong")
        }
        for name, logits in views.items():
            expected = inputs[f"{case}/swapped_{name}"]
            actual = step.swap(logits, target)
            checks.true(f"{case}: swapped {name}", torch.equal(actual, expected.double()))
        for ce_weight, kd_weight in ((0.1, 0.9), (0.5, 0.5), (1.0, 0.5)):
            for epoch in (1, 150, 151):
                prefix = f"{case}/w{ce_weight}_{kd_weight}/e{epoch}"
                own = [views[f"student_{view}"].clone().requires_grad_() for view in ("weak", "strong")]
                others = [views[f"teacher_{view}"] for view in ("weak", "strong")]
                parts = step.sld_loss(own, others, target, epoch > 150, ce_weight, kd_weight)
                for part, value in zip(("loss_ce", "loss_kd"), parts):
                    checks.close(f"{prefix}: {part}", value, recorded[f"{prefix}/{part}_f64"], EXACT)
                for view, gradient in zip(("weak", "strong"), torch.autograd.grad(sum(parts), own)):
                    key = f"{prefix}/grad_student_{view}_f64"
                    if key in recorded:
                        checks.close(key, gradient, recorded[key], ROUNDED)


def check_steps(checks, folder):
    """Eight whole steps across the epoch where the gate opens and the learning rate falls."""
    recorded, metadata = read(folder / "boundary.safetensors")
    student = formula.fill(models.build("wrn_16_1"), "traj/wrn_16_1").double().train()
    teacher = formula.fill(models.build("wrn_16_2"), "traj/wrn_16_2").double().eval()
    sgd = step.optimizer(student)
    for epoch, index in json.loads(metadata["schedule"]):
        sgd.param_groups[0]["lr"] = recorded["lr_f64"][index].item()
        weak = formula.images(f"traj/weak/{index}", 8).double()
        strong = formula.images(f"traj/strong/{index}", 8).double()
        target = recorded["target"][index]
        parts = step.sld_step(student, teacher, sgd, weak, strong, target, epoch > 150)
        for part, value in zip(("loss_ce", "loss_kd"), parts):
            expected = recorded[f"{part}_f64"][index]
            checks.close(f"step {index}: {part}", value, expected, 1e-7)
    for name, value in student.named_parameters():
        expected = recorded[f"final_sample_f64/{name}"]
        checks.close(f"{name} after 8 steps", sampled(value), expected, 1e-7)
    for name, value in student.named_buffers():
        if name.endswith("num_batches_tracked"):
            checks.true(f"{name} after 8 steps", value == recorded[f"final/{name}"])


def run(fixtures, names):
    """Runs all checks, with the networks of these names.

    Returns whether they passed, or None if there is nothing to check with.
    """
    if not (fixtures / "models").is_dir():
        print(f"NOT VERIFIED: no fixtures at {fixtures}; the PyTorch side is taken on trust")
        return None
    checks = Checks()
    check_generator(checks)
    for name in names:
        if (fixtures / "models" / f"{name}.safetensors").exists():
            check_model(checks, name, fixtures / "models")
        else:
            print(f"not verified, no fixture: {name}")
    check_loss(checks, fixtures / "loss")
    check_steps(checks, fixtures / "traj")
    print(f"PyTorch side verified: {checks.passed} passed, {checks.failed} failed")
    return checks.failed == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixtures", type=Path, default=FIXTURES)
    parser.add_argument("--models", nargs="*", default=models.NAMES, metavar="MODEL")
    arguments = parser.parse_args()
    sys.exit(1 if run(arguments.fixtures, arguments.models) is False else 0)
