"""A U-Net's training step: Keras on each backend beside the same network in plain PyTorch, taking turns in one run.

    python benchmarks/unet_step.py [--rounds 5] [--base 16] [--cases 128x8,128x2,256x4]

A case is the picture's side and the batch. Every contestant is a process of its own that waits for its turn: a step is
forward, backward and Adam on a batch that is already in memory. PyTorch's network is written out below (channels last, as
its documentation advises; once as it is and once through `torch.compile`); it has as many parameters as ours.

The ratio is the course's seconds over plain PyTorch's, median over the rounds: below 1 is quicker. Where PyTorch is not
installed (EXTRA=cpu,torch installs it), TensorFlow is what the others are compared with. "Of a matrix product" is the
share of the speed that one large float32 matrix product reaches in the same process: what the step could gain at most.
On a GPU every contestant runs in float32 and in mixed precision.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _shared import PROJECT, finish, parser, row

CONTESTANTS = ("torch", "torch.compile", "keras-tensorflow", "keras-jax", "keras-torch")
NEEDS = {
    "torch": "torch",
    "torch.compile": "torch",
    "keras-torch": "torch",
    "keras-jax": "jax",
    "keras-tensorflow": "tensorflow",
}
DEPTH, CLASSES, STEPS = 4, 2, 2


# What a contestant does, in its own process ------------------------------------------------------------------


def batch_of(side: int, batch: int):
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.random((batch, side, side, 1), np.float32)
    return images, (rng.random((batch, side, side)) > 0.5).astype(np.int32)


def keras_step(side: int, batch: int, base: int, mixed: bool):
    import keras

    from course_lib.models.analysis import costs
    from course_lib.models.unet import unet

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16" if mixed else "float32")
    net = unet((side, side, 1), CLASSES, base_filters=base, depth=DEPTH)
    compiled = keras.backend.backend() != "torch"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile("adam", loss, jit_compile=compiled)
    images, labels = batch_of(side, batch)
    matrices = keras.random.normal((2048, 2048), dtype="float16" if mixed else "float32")

    def product():
        keras.ops.convert_to_numpy(keras.ops.matmul(matrices, matrices)[0, 0])

    return (
        lambda: float(net.train_on_batch(images, labels)),
        net.count_params(),
        product,
        3 * batch * costs(net).multiply_adds,
    )


def torch_step(side: int, batch: int, base: int, mixed: bool, compiled: bool):
    import torch
    from torch import nn

    class Net(nn.Module):
        """The padded U-Net of `course_lib.models.unet`, in PyTorch."""

        def __init__(self):
            super().__init__()
            widths = [base * 2**level for level in range(DEPTH + 1)]
            self.down = nn.ModuleList(
                self.pair(before, width) for before, width in zip([1, *widths], widths, strict=False)
            )
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[:-1])
            self.joined = nn.ModuleList(self.pair(2 * width, width) for width in widths[:-1])
            self.last = nn.Conv2d(base, CLASSES, 1)

        def pair(self, before, width):
            return nn.Sequential(
                nn.Conv2d(before, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
            )

        def forward(self, x):
            skips = []
            for level, pair in enumerate(self.down):
                x = pair(nn.functional.max_pool2d(x, 2) if level else x)
                skips.append(x)
            for level in reversed(range(DEPTH)):
                x = self.joined[level](torch.cat([skips[level], self.up[level](x)], 1))
            return self.last(x)

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = Net().to(device, memory_format=torch.channels_last)
    called = torch.compile(net) if compiled else net
    optimizer = torch.optim.Adam(net.parameters())
    images, labels = batch_of(side, batch)
    images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(
        device, memory_format=torch.channels_last
    )
    labels = torch.from_numpy(labels).long().to(device)
    scaler = torch.amp.GradScaler(device, enabled=mixed)
    matrices = torch.randn(2048, 2048, device=device, dtype=torch.float16 if mixed else torch.float32)

    def product():
        (matrices @ matrices)[0, 0].item()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.float16, enabled=mixed):
            loss = nn.functional.cross_entropy(called(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return step, sum(weights.numel() for weights in net.parameters()), product, None


def contestant(name: str) -> None:
    """Reads one case a line, says what building it took; then times `STEPS` steps for each line "go"."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if name.startswith("keras-"):
        os.environ["KERAS_BACKEND"] = name.removeprefix("keras-")
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing but our answers may reach the parent

    def answer(**content):
        print(json.dumps(content), file=answers, flush=True)

    step = None
    for line in sys.stdin:
        try:
            if line.strip() != "go":
                case = json.loads(line)
                start = time.perf_counter()
                if name.startswith("keras-"):
                    step, parameters, product, macs = keras_step(**case)
                else:
                    step, parameters, product, macs = torch_step(**case, compiled=name == "torch.compile")
                step()
                first = time.perf_counter() - start
                step(), product()
                start = time.perf_counter()
                product()
                answer(
                    first=first,
                    parameters=parameters,
                    macs=macs,
                    product=2048**3 / (time.perf_counter() - start),
                )
            else:
                start = time.perf_counter()
                loss = [step() for _ in range(STEPS)][-1]
                answer(seconds=(time.perf_counter() - start) / STEPS, loss=loss)
        except Exception as error:  # whatever a compiler may say: the others go on, and the table names it
            answer(
                error=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error) else ''}"
            )


# The run -------------------------------------------------------------------------------------------------------


class Contestant:
    def __init__(self, name: str):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--contestant", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=PROJECT,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))},
        )

    def ask(self, line: str) -> dict:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        return json.loads(said) if said else {"error": "the process ended"}

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--base", type=int, default=16, help="channels of the first level (default 16)")
    options.add_argument("--cases", default="128x8,128x2,256x4", help="side x batch, with commas between")
    options.add_argument("--contestant", help="for the children only")
    options = options.parse_args()
    if options.contestant:
        contestant(options.contestant)
        return

    missing = {
        name: f"{NEEDS[name]} is not installed"
        for name in CONTESTANTS
        if not importlib.util.find_spec(NEEDS[name])
    }
    running = {name: Contestant(name) for name in CONTESTANTS if name not in missing}
    base_name = "torch" if "torch" in running else "keras-tensorflow"
    rows = []
    for case in options.cases.split(","):
        side, batch = map(int, case.split("x"))
        for mixed in (False, True) if has_gpu() else (False,):
            request = json.dumps({"side": side, "batch": batch, "base": options.base, "mixed": mixed})
            built, failed = {}, dict(missing)
            for name, one in running.items():
                said = one.ask(request)
                (failed if "error" in said else built)[name] = said.get("error", said)
            seconds: dict[str, list[float]] = {name: [] for name in built}
            for _ in range(options.rounds):
                for name in list(seconds):
                    said = running[name].ask("go")
                    if "error" in said:
                        failed[name] = said["error"]
                        del seconds[name]
                    else:
                        seconds[name].append(said["seconds"])
            if len({built[name]["parameters"] for name in seconds}) > 1:
                raise SystemExit(f"The networks differ: {built}; the times would mean nothing.")
            macs = next((one["macs"] for one in built.values() if one["macs"]), None)
            for name in CONTESTANTS:
                what = f"U-Net step, {side} x {side}, batch {batch}{', mixed' if mixed else ''}: {name}"
                if name in failed:
                    rows.append(row(what, [], why=f"not run: {failed[name]}"))
                    continue
                theirs = seconds[base_name] if name != base_name and base_name in seconds else None
                share = macs and macs / statistics.median(seconds[name]) / built[name]["product"]
                rows.append(
                    row(
                        what,
                        seconds[name],
                        theirs,
                        base_name,
                        side=side,
                        batch=batch,
                        mixed=mixed,
                        first_step=round(built[name]["first"], 1),
                        parameters=built[name]["parameters"],
                        of_a_matrix_product=share and round(share, 2),
                    )
                )
                print(
                    f"{what}: first step {built[name]['first']:.1f} s, {share or 0:.0%} of a matrix product",
                    flush=True,
                )
    for one in running.values():
        one.close()
    print()
    finish("unet-step", rows, base=options.base, steps=STEPS)


if __name__ == "__main__":
    main()
