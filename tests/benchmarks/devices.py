"""What a GPU gains: one training step and the sampling of 64 images, for each model.

    .venv/bin/python tests/benchmarks/devices.py

Not collected by the tests: times depend on the machine and on what else it does. On the CPU, the
processor time of one thread; on the GPU, the time of the clock until all is computed. Without a
GPU, the CPU alone.
"""

import time
from functools import partial

import torch
from measure import measure, training_step

from course_utils import (
    CVAE,
    FVSBN,
    MADE,
    NADE,
    VAE,
    VQVAE,
    DiagonalBiLSTM,
    PixelCNN,
    RowLSTM,
    load,
)

IMAGES = 64  # in a training step, and drawn

MODELS = {
    "VAE": VAE,
    "CVAE": partial(CVAE, num_classes=10),
    "FVSBN": FVSBN,
    "NADE 500": NADE,
    "MADE 2×500": partial(MADE, hidden=(500, 500)),
    "plain PixelCNN 32×15": partial(PixelCNN, gated=False, layers=15),
    "gated PixelCNN 32×7": PixelCNN,
    "Row LSTM 32×2": RowLSTM,
    "Diagonal BiLSTM 32×1": partial(DiagonalBiLSTM, layers=1),
    "VQ-VAE": VQVAE,
}


def make_tasks(data, device):
    """The functions to time, by the name of the model and what it does."""
    tasks = {}
    for name, build in MODELS.items():
        torch.manual_seed(0)
        model = build(data.shape).to(device)
        x, y = (part.to(device) for part in data.train.batch(torch.arange(IMAGES)))
        y = (y,) if name == "CVAE" else ()
        tasks[name, "step"] = training_step(model, x, *y)
        tasks[name, "sample"] = partial(model.sample, IMAGES, *y)
    return tasks


def gpu_time(task, repeats=10):
    """Clock time of a task on the GPU, ms, once it is warm."""
    for _ in range(3):
        task()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        task()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / repeats


def main():
    torch.set_num_threads(1)
    data = load("digits", levels=2, copies=0)
    cpu, gpu, name = measure(make_tasks(data, "cpu"), rounds=3), {}, "no GPU"
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        gpu = {key: gpu_time(task) for key, task in make_tasks(data, "cuda").items()}
    print(f"torch {torch.__version__}, one thread, {name}; 28×28, {IMAGES} images; times in ms")
    head = f"{'GPU':>8} {'ratio':>7}"
    print(f"{'':22}{'step: CPU':>10} {head}{'sample: CPU':>14} {head}")
    for model in MODELS:
        line = f"{model:22}"
        for task, width in (("step", 10), ("sample", 14)):
            line += f"{cpu[model, task]:{width}.1f} "
            if gpu:
                ratio = cpu[model, task] / gpu[model, task]
                line += f"{gpu[model, task]:8.2f} {ratio:7.1f}"
            else:
                line += f"{'–':>8} {'–':>7}"
        print(line)


if __name__ == "__main__":
    main()
