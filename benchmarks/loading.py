"""Loading batches beside the training step that eats them: is the step ever waiting for data?

    python benchmarks/loading.py [--steps 30] [--recipes unet-cells,unet-scenes,unet-nuclei,unet-camvid-small]

For each recipe: seconds for a batch with one and two loading threads, the training step alone on a batch that lies in
memory, and then a real epoch, in which the time that `fit` spends inside the loader is counted. The ratio is that
waiting over the whole epoch: 0 means that data was always there. Recipes whose data is not here are left out with a reason.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _shared import finish, parser, row  # noqa: I001

import keras

from course_lib import recipes, training
from course_lib.datasets import DataError
from course_lib.datasets.loading import Batches


class Waited(keras.utils.PyDataset):
    """The batches of another, with the seconds that whoever asks has to wait."""

    def __init__(self, batches):
        super().__init__()
        self.batches, self.seconds = batches, 0.0

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, k):
        start = time.perf_counter()
        batch = self.batches[k]
        self.seconds += time.perf_counter() - start
        return batch


def main() -> None:
    options = parser(__doc__, rounds=1)
    options.add_argument("--steps", type=int, default=30, help="batches of each run (default 30)")
    options.add_argument("--recipes", default="unet-cells,unet-scenes,unet-nuclei,unet-camvid-small")
    options = options.parse_args()
    rows = []
    for name in options.recipes.split(","):
        recipe = recipes.get(name)
        try:
            dataset = recipe.data("train")
        except DataError as error:
            rows.append(row(f"{name}: loading", [], why=f"not run: {str(error).split('.')[0]}"))
            continue

        def batches(workers, recipe=recipe, dataset=dataset):
            return Batches(
                dataset,
                recipe.batch_size,
                recipe.crop,
                steps=options.steps,
                task=recipe.task,
                augmentation=recipe.augmentation,
                normalization=recipe.normalization,
                seed=recipe.seed,
                sampling=recipe.sampling,
                workers=workers,
            )

        about = {"batch": recipe.batch_size, "crop": list(recipe.crop)}
        for workers in (1, 2):
            ours = batches(workers)
            ours[0]  # the first call starts the threads
            seconds = []
            for k in range(1, options.steps):
                start = time.perf_counter()
                ours[k]
                seconds.append(time.perf_counter() - start)
            rows.append(row(f"{name}: a batch, {workers} thread{'s' * (workers > 1)}", seconds, **about))

        net = recipe.model()
        training.compile_model(net, recipe, training.JIT)
        batch = batches(1)[0]
        net.train_on_batch(*batch)
        seconds = []
        for _ in range(max(3, options.steps // 4)):
            start = time.perf_counter()
            net.train_on_batch(*batch)
            seconds.append(time.perf_counter() - start)
        rows.append(row(f"{name}: a training step, its batch in memory", seconds, **about))

        waited = Waited(batches(2))
        net.fit(waited, epochs=1, verbose=0)  # the first epoch fills the loader's cache
        waited.seconds = 0.0
        start = time.perf_counter()
        net.fit(waited, epochs=1, verbose=0)
        whole = time.perf_counter() - start
        rows.append(
            row(
                f"{name}: waiting within an epoch / the epoch",
                [waited.seconds],
                [whole],
                "the epoch",
                **about,
            )
        )
    finish("loading", rows, backend=keras.backend.backend(), steps=options.steps)


if __name__ == "__main__":
    main()
