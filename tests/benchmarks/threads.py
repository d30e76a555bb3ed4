"""Why the course uses one thread: how fast it works, alone and two processes at once.

Training steps per second of the VAE of notebook 01, and fits per second of a mixture of the size of
the one that it fits (scikit-learn).

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


def fits_per_second():
    """Fit the mixture of 30 Gaussians in 16 dimensions, on numbers drawn at random."""
    import numpy
    from sklearn.mixture import GaussianMixture

    codes = numpy.random.default_rng(0).normal(size=(6000, 16))
    start = time.perf_counter()
    GaussianMixture(n_components=30, random_state=0, max_iter=50, tol=0).fit(codes)
    return 1 / (time.perf_counter() - start)


def measure(threads, wait_policy, processes):
    """Mean speeds of `processes` simultaneous workers, each with `threads` threads."""
    environment = os.environ | {"COURSE_THREADS": str(threads), "OMP_WAIT_POLICY": wait_policy}
    command = [sys.executable, __file__, "--worker"]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    speeds = [map(float, process.communicate()[0].split()) for process in running]
    return [sum(speed) / processes for speed in zip(*speeds)]


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        print(steps_per_second(), fits_per_second())
    else:
        print(f"{os.cpu_count()} cores; steps and fits per second of each process")
        for threads, wait_policy in ((1, "PASSIVE"), (2, "ACTIVE"), (2, "PASSIVE")):
            alone, together = (measure(threads, wait_policy, n) for n in (1, 2))
            for what, one, two in zip(("steps", "fits"), alone, together):
                print(f"{threads} thread(s), {wait_policy:7s}, {what:5s}: ", end="")
                print(f"alone {one:6.2f}, two {two:6.2f}")
