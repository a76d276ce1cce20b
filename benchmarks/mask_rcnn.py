"""Mask R-CNN: a prediction, a training step, and where the time goes; beside torchvision's where it runs.

    python benchmarks/mask_rcnn.py [--rounds 5] [--net small|resnet50] [--sides 128,256] [--proposals 100,1000]

Without a GPU: the small network of `maskrcnn-nuclei`. With one: ResNet-50-FPN beside torchvision's
`maskrcnn_resnet50_fpn`, the same picture size, batch and number of proposals. The network's weights are random, so it
proposes as much as it may: the time does not depend on what is in the picture, for our shapes are fixed.

The stages are timed one after the other, uncompiled, as `predict_detections` calls them; the compiled whole
(`predict_on_batch`) stands beside. KERAS_BACKEND decides what Keras runs on.
"""

import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _shared import finish, in_turns, parser, row


def why_no_torchvision() -> str:
    """Why torchvision cannot be compared with; empty where it can."""
    if importlib.util.find_spec("torchvision") is None:
        return "torchvision is not installed"
    try:
        import torch
        from torchvision.ops import nms

        nms(torch.zeros((1, 4)), torch.zeros(1), 0.5)
    except Exception as error:
        return f"torchvision's operations do not load: {type(error).__name__}"
    return "" if torch.cuda.is_available() else "compared on a GPU only"


def torchvision_functions(side: int, batch: int, proposals: int):
    """A prediction and a training step of torchvision's network, each to be called without arguments."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    net = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        min_size=side,
        max_size=side,
        rpn_post_nms_top_n_test=proposals,
        rpn_post_nms_top_n_train=proposals,
    ).cuda()
    pictures = [torch.rand(3, side, side, device="cuda") for _ in range(batch)]
    box = torch.tensor([[side / 8, side / 8, side / 2, side / 2]], device="cuda")
    masks = torch.zeros((1, side, side), dtype=torch.uint8, device="cuda")
    masks[:, side // 8 : side // 2, side // 8 : side // 2] = 1
    truth = [
        {"boxes": box, "labels": torch.ones(1, dtype=torch.int64, device="cuda"), "masks": masks}
    ] * batch
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)

    def predict():
        net.eval()
        with torch.no_grad():
            net(pictures)
        torch.cuda.synchronize()

    def train():
        net.train()
        optimizer.zero_grad(set_to_none=True)
        sum(net(pictures, truth).values()).backward()
        optimizer.step()
        torch.cuda.synchronize()

    return predict, train


def network(kind: str, proposals: int):
    from course_lib import recipes
    from course_lib.models import MaskRCNN

    if kind == "small":
        arguments = dict(recipes.get("maskrcnn-nuclei").network_arguments)
        settings = dict(arguments.pop("settings"))
        settings["rpn_post_nms_top_n"] = (proposals, proposals)
        return MaskRCNN(2, channels=1, settings=settings, **arguments)
    return MaskRCNN(91, backbone="resnet50", settings={"rpn_post_nms_top_n": (proposals, proposals)})


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument(
        "--net", choices=("small", "resnet50"), help="small without a GPU, resnet50 with one"
    )
    options.add_argument("--sides", help="picture sides (default: 128,256; on a GPU 512,800)")
    options.add_argument("--proposals", default="100,1000", help="proposals of a picture (default 100,1000)")
    options.add_argument("--batch", type=int, default=2)
    options = options.parse_args()

    import keras
    import numpy as np

    from course_lib import hardware
    from course_lib.datasets.detection import truth_from_maps

    gpu = bool(hardware.accelerators())
    kind = options.net or ("resnet50" if gpu else "small")
    sides = [int(side) for side in (options.sides or ("512,800" if gpu else "128,256")).split(",")]
    why = why_no_torchvision() if kind == "resnet50" else "torchvision has no network of this size"
    rng = np.random.default_rng(0)
    rows = []

    def wait(values):
        # A GPU works on after the call: reading a number back is the end of the work.
        for value in keras.tree.flatten(values):
            keras.ops.convert_to_numpy(value)

    for side in sides:
        for proposals in map(int, options.proposals.split(",")):
            keras.utils.set_random_seed(0)
            net = network(kind, proposals)
            net.compile(keras.optimizers.SGD(1e-4), jit_compile=gpu)
            size = (side, side)
            pictures = rng.random((options.batch, side, side, net.channels), np.float32)
            instances = np.zeros((options.batch, side, side), np.int32)
            instances[:, side // 8 : side // 2, side // 8 : side // 2] = 1
            truth = truth_from_maps(instances, instances, 32)
            tensor = keras.ops.convert_to_tensor(pictures)
            features = net.features(tensor)
            boxes = net.propose(features, size)[0]
            found = net.detect(features, size)
            about = {"side": side, "batch": options.batch, "proposals": proposals}
            where = f"{kind}, {side} x {side}, batch {options.batch}, {proposals} proposals"

            functions = [lambda: net.predict_on_batch(pictures), lambda: net.train_on_batch(pictures, truth)]
            theirs = list(torchvision_functions(side, options.batch, proposals)) if not why else []
            timed = in_turns(options.rounds, *functions, *theirs)
            for number, what in enumerate(("prediction", "training step")):
                other = timed[2 + number] if theirs else None
                rows.append(
                    row(f"Mask R-CNN {what}: {where}", timed[number], other, "torchvision", why=why, **about)
                )

            stages = {
                "backbone, pyramid, RPN": lambda: wait(net.features(tensor)),
                "proposals: decode, best, NMS": lambda: wait(net.propose(features, size)[0]),
                "RoI Align and box head": lambda: wait(net.predict_boxes(features, boxes)),
                "RoI Align and mask head": lambda: wait(net.predict_masks(features, found["boxes"])),
                "all after the features": lambda: wait(net.detect(features, size)),
            }
            for (what, _), seconds in zip(
                stages.items(), in_turns(options.rounds, *stages.values()), strict=True
            ):
                rows.append(row(f"  {what}", seconds, stage=True, **about))
    finish("mask-rcnn", rows, backend=keras.backend.backend())


if __name__ == "__main__":
    main()
