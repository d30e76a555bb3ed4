"""Why the course uses one thread: training steps per second, alone and two processes at once.

    .venv/bin/python tests/benchmarks/threads.py

Not collected by the tests: wall-clock time depends on the machine and on what else it does. Read
the ratios of one run.
"""

import os
import subprocess
import sys
import time

STEPS = 150


def steps_per_second():
    """Train the VAE of notebook 01 for a few steps, in this process."""
    from course_utils import VAE, fit, load

    data = load("digits", levels=2, copies=1)
    model = VAE(data.shape, z_dim=16)
    options = {"val_every": STEPS, "progress": False, "device": "cpu", "patience": None}
    fit(model, data, steps=20, **options)  # warm up
    start = time.perf_counter()
    fit(model, data, steps=STEPS, **options)
    return STEPS / (time.perf_counter() - start)


def measure(threads, wait_policy, processes):
    """Mean speed of `processes` simultaneous trainings, each with `threads` threads."""
    environment = os.environ | {"COURSE_THREADS": str(threads), "OMP_WAIT_POLICY": wait_policy}
    command = [sys.executable, __file__, "--worker"]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(float(process.communicate()[0]) for process in running) / processes


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        print(steps_per_second())
    else:
        print(f"{os.cpu_count()} cores; steps per second of each process")
        for threads, wait_policy in ((1, "PASSIVE"), (2, "ACTIVE"), (2, "PASSIVE")):
            alone, together = (measure(threads, wait_policy, n) for n in (1, 2))
            print(f"{threads} thread(s), {wait_policy:7s}: alone {alone:5.1f}, two {together:5.1f}")
