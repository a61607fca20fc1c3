"""One training step of Swapped Logit Distillation, and the two plain steps beside it."""

import torch
import torch.nn.functional as F

TEMPERATURES = (1, 2, 3, 4, 5, 6)


def swap(logits, target):
    """Exchanges, in each row, the largest logit and the target's (nothing if they are the same).

    The indices are constants; the values stay differentiable.
    """
    rows = torch.arange(len(logits))
    largest = logits.detach().argmax(1)
    order = torch.arange(logits.shape[1]).repeat(len(logits), 1)
    order[rows, largest] = target
    order[rows, target] = largest
    return logits.gather(1, order)


def divergence(target, logits, temperature):
    """T^2 times the batch mean of KL(softmax(target / T) || softmax(logits / T))."""
    log_p = F.log_softmax(target / temperature, 1)
    log_q = F.log_softmax(logits / temperature, 1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def sld_loss(student, teacher, target, gate, ce_weight=0.1, kd_weight=0.9):
    """The cross-entropy part and the distillation part of the loss.

    `student` and `teacher` are each the pair of logits [B, C] of the weak and the strong view.
    With `gate`, the student also learns from its own swapped logits, and that target is not
    detached: its gradient counts.
    """
    cross_entropy = sum(F.cross_entropy(logits, target) for logits in student)
    distillation = 0
    for own, others in zip(student, teacher):
        swapped_teacher = swap(others, target)
        swapped_student = swap(own, target) if gate else None
        for temperature in TEMPERATURES:
            distillation = distillation + divergence(swapped_teacher, own, temperature)
            if gate:
                distillation = distillation + divergence(swapped_student, own, temperature)
    return ce_weight * cross_entropy, kd_weight * distillation


def optimizer(model, rate=0.025):
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)


def sld_step(student, teacher, sgd, weak, strong, target, gate):
    """A whole step; returns the two parts of the loss and both programs' logits."""
    sgd.zero_grad(set_to_none=True)
    own = student(weak), student(strong)
    with torch.no_grad():
        others = teacher(weak), teacher(strong)
    cross_entropy, distillation = sld_loss(own, others, target, gate)
    (cross_entropy + distillation).backward()
    sgd.step()
    return cross_entropy, distillation, own, others


def vanilla_step(model, sgd, images, target):
    """A step of plain training on labels; returns the loss."""
    sgd.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(images), target)
    loss.backward()
    sgd.step()
    return loss
