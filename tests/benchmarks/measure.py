"""What the benchmarks share: tasks that take turns, their times, their ratios."""

import gc
import math
import statistics
import time

import torch

TURN = 15  # turn of a task in each round, in ms


def training_step(model, *batch):
    """A function that does one step of training, always on the same batch: images, or (x, y)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def run():
        optimizer.zero_grad(set_to_none=True)
        model.loss(*batch).backward()
        optimizer.step()

    return run


def forward(model, images):
    """A function that does one full pass, without gradients."""
    return torch.no_grad()(lambda: model.log_prob(images))


def cpu_time(task, repeats=1):
    """Processor time of a task, in ms."""
    start = time.process_time()
    for _ in range(repeats):
        task()
    return 1000 * (time.process_time() - start) / repeats


def measure(tasks, rounds=13):
    """Median time of each task, ms; the tasks take turns, of at least TURN ms each.

    A task of one millisecond, alone in its turn, would mostly measure the reading of weights that
    the others have driven out of the cache.
    """
    repeats = {name: math.ceil(TURN / cpu_time(task)) for name, task in tasks.items()}
    times = []
    gc.disable()  # a collection would be charged to whichever task it falls on
    for _ in range(rounds):
        times.append({name: cpu_time(task, repeats[name]) for name, task in tasks.items()})
        gc.collect()
    gc.enable()
    return {name: statistics.median(turn[name] for turn in times) for name in tasks}


def compare(title, tasks, lines, *, rounds=13, known=None):
    """Time the tasks that the lines name, and print one line for each pair.

    Args:
        title: what was measured.
        tasks: functions, by name; those that no line names are left out.
        lines: two names, the sign and the value of the goal for first / second; no goal: None.
        known: times measured otherwise, by name.
    """
    needed = {name for first, second, *_ in lines for name in (first, second)}
    times = measure({name: task for name, task in tasks.items() if name in needed}, rounds)
    times |= known or {}
    print(f"torch {torch.__version__}, one thread; {title}")
    print(f"{'ms':>35}   {'against':28} {'ms':>8}   {'ratio':>7}  goal")
    for first, second, sign, goal in lines:
        ratio = times[first] / times[second]
        line = f"{first:26} {times[first]:8.2f}   {second:28} {times[second]:8.2f}   {ratio:7.2f}"
        if goal is not None:
            reached = ratio <= goal if sign == "≤" else ratio >= goal
            line += f"  {sign} {goal:<5g}" + ("✓" if reached else "✗")
        print(line)
