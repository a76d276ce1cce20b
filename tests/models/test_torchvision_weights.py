"""torchvision's weights in our layers: names, shapes, axes, files."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from safetensors.numpy import save_file

from course_lib.models.backbone import small_resnet
from course_lib.models.mask_rcnn.torchvision_weights import (
    current_name,
    load_torchvision,
    read_state_dict,
    torchvision_shapes,
)

pytestmark = pytest.mark.backend

TINY = {"widths": (4, 4, 8, 8), "blocks": (1, 1, 2, 2)}


def heads():
    """A layer of each kind, named after torchvision's modules."""
    pooled = keras.Input((7, 7, 3))
    x = layers.Dense(5, name="roi_heads-box_head-fc6")(layers.Flatten()(pooled))
    mask = layers.Conv2DTranspose(4, 2, strides=2, name="roi_heads-mask_predictor-conv5_mask")(pooled)
    mask = layers.BatchNormalization(name="roi_heads-mask_head-0-1")(mask)
    return keras.Model(
        pooled, [layers.Dense(2, name="roi_heads-box_predictor-cls_score")(x), mask], name="heads"
    )


def state_of(model):
    rng = np.random.default_rng(3)
    return {
        name: rng.standard_normal(shape).astype("float32")
        for name, shape in torchvision_shapes(model).items()
    }


def test_names_and_shapes_are_torchvisions():
    assert torchvision_shapes(heads()) == {
        "roi_heads.box_head.fc6.weight": (5, 3 * 7 * 7),
        "roi_heads.box_head.fc6.bias": (5,),
        "roi_heads.mask_predictor.conv5_mask.weight": (3, 4, 2, 2),
        "roi_heads.mask_predictor.conv5_mask.bias": (4,),
        "roi_heads.mask_head.0.1.weight": (4,),
        "roi_heads.mask_head.0.1.bias": (4,),
        "roi_heads.mask_head.0.1.running_mean": (4,),
        "roi_heads.mask_head.0.1.running_var": (4,),
        "roi_heads.box_predictor.cls_score.weight": (2, 5),
        "roi_heads.box_predictor.cls_score.bias": (2,),
    }
    shapes = torchvision_shapes(small_resnet(**TINY, prefix="backbone-body-"))
    assert shapes["backbone.body.layer2.0.downsample.0.weight"] == (4, 4, 1, 1)
    assert shapes["backbone.body.layer3.0.conv1.weight"] == (8, 4, 3, 3)


def test_loaded_layers_compute_what_torchvisions_compute():
    model = heads()
    state = state_of(model)
    # What PyTorch keeps beside: a count of batches.
    load_torchvision(model, state | {"roi_heads.mask_head.0.1.num_batches_tracked": np.array(7)})
    pooled = np.random.default_rng(0).standard_normal((2, 7, 7, 3)).astype("float32")
    channels_first = pooled.transpose(0, 3, 1, 2)

    def dense(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    expected = dense(
        dense(channels_first.reshape(2, -1), "roi_heads.box_head.fc6"), "roi_heads.box_predictor.cls_score"
    )
    logits = keras.Model(model.input, model.outputs[0])(pooled)
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, rtol=1e-4, atol=1e-4)

    # A transposed convolution of size and stride 2: each pixel becomes a block of 2 × 2.
    name = "roi_heads.mask_predictor.conv5_mask"
    blocks = np.einsum("bihw,iojk->bohjwk", channels_first, state[f"{name}.weight"]).reshape(2, 4, 14, 14)
    upsampled = keras.Model(model.input, model.get_layer(name.replace(".", "-")).output)(pooled)
    np.testing.assert_allclose(
        ops.convert_to_numpy(upsampled), blocks.transpose(0, 2, 3, 1) + state[f"{name}.bias"], atol=1e-5
    )


def test_missing_extra_and_misshapen_names_are_listed_and_the_model_is_left_as_it_was():
    model = heads()
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    state = state_of(model)
    del state["roi_heads.box_head.fc6.bias"]
    state["roi_heads.box_head.fc8.bias"] = np.zeros(3)
    state["roi_heads.box_predictor.cls_score.weight"] = np.zeros((91, 5))
    with pytest.raises(ValueError) as caught:
        load_torchvision(model, state)
    assert str(caught.value).splitlines() == [
        "These weights do not fit the model heads: 1 names missing, 1 extra, 1 misshapen (shapes as in torchvision). "
        "Build the model that they belong to, or list in `ignore` what to leave out.",
        "missing: roi_heads.box_head.fc6.bias (5,)",
        "extra: roi_heads.box_head.fc8.bias (3,)",
        "misshapen: roi_heads.box_predictor.cls_score.weight is (91, 5), the model's (2, 5)",
    ]
    for weight, value in zip(model.weights, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)


def test_a_flattened_map_of_another_size_is_refused():
    inputs = keras.Input((75,))
    model = keras.Model(inputs, layers.Dense(5, name="roi_heads-box_head-fc6")(inputs))
    with pytest.raises(ValueError, match="fc6.weight takes 75 numbers, which is not a feature map of 7 × 7"):
        load_torchvision(model, state_of(model))


def test_what_is_ignored_is_neither_wanted_nor_taken():
    model = heads()
    before = ops.convert_to_numpy(model.get_layer("roi_heads-box_predictor-cls_score").kernel)
    state = state_of(model)
    state["roi_heads.box_predictor.cls_score.weight"] = np.zeros((91, 5))
    del state["roi_heads.box_predictor.cls_score.bias"]
    load_torchvision(model, state, ignore=("roi_heads.box_predictor.",))
    after = ops.convert_to_numpy(model.get_layer("roi_heads-box_predictor-cls_score").kernel)
    np.testing.assert_array_equal(after, before)
    bias = ops.convert_to_numpy(model.get_layer("roi_heads-box_head-fc6").bias)
    np.testing.assert_array_equal(bias, state["roi_heads.box_head.fc6.bias"])


def test_two_layers_of_one_name_are_refused():
    bodies = [small_resnet(**TINY, name=name) for name in ("one", "two")]
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, [body(inputs)[3] for body in bodies])
    with pytest.raises(ValueError, match="two variables for torchvision's conv1.weight"):
        torchvision_shapes(model)


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("backbone.fpn.inner_blocks.3.weight", "backbone.fpn.inner_blocks.3.0.weight"),
        ("backbone.fpn.layer_blocks.0.bias", "backbone.fpn.layer_blocks.0.0.bias"),
        ("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
        ("roi_heads.mask_head.mask_fcn1.weight", "roi_heads.mask_head.0.0.weight"),
        ("roi_heads.mask_head.mask_fcn4.bias", "roi_heads.mask_head.3.0.bias"),
        ("roi_heads.mask_predictor.mask_fcn_logits.bias", None),
        ("backbone.fpn.inner_blocks.3.0.weight", None),
        ("rpn.head.conv.0.0.weight", None),
    ],
)
def test_names_of_2019(old, today):
    assert current_name(old) == (today or old)


# Files

# Written by PyTorch 2.13 with `torch.save`: zip, and the format of before 2020. In both: a kernel, a transposed view and a
# slice of one storage, half precision, bfloat16, a 64-bit scalar, an array without elements.


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_weights_from_a_file(tmp_path, kind):
    model, again = heads(), heads()
    state = state_of(model)
    path = tmp_path / f"weights.{kind}"
    if kind == "npz":
        np.savez(path, **state)
    else:
        save_file(state, path)
    load_torchvision(model, state)
    load_torchvision(again, path)
    for weight, other in zip(model.weights, again.weights):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), ops.convert_to_numpy(other))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="source is weights.h5; it must end in .safetensors or .npz"):
        read_state_dict(tmp_path / "weights.h5")
    with pytest.raises(
        ValueError, match="source is weights.pth; .*convert it once, where PyTorch is installed"
    ):
        read_state_dict(tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match="download the weights"):
        read_state_dict(tmp_path / "weights.npz")
    for kind in ("npz", "safetensors"):
        path = tmp_path / f"weights.{kind}"
        for content in (b"", b"no archive", b"\xff" * 8):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=f"weights.{kind} cannot be read as weights"):
                read_state_dict(path)
    np.savez(tmp_path / "weights.npz", a=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(ValueError, match="weights.npz cannot be read"):
        read_state_dict(tmp_path / "weights.npz")
