"""From one device to many: what a compiled program sends, the arithmetic of the wire, processes that start together."""

import json
import os
import time

import numpy as np
import pytest

from course_lib.chapters.ch11_scaling_out import scaling
from course_lib.chapters.ch11_scaling_out.scaling import (
    Collective,
    LaunchError,
    Wire,
    collectives,
    efficiency,
    launch,
    ring_bytes,
    table,
)

HEADER = "HloModule jit_train_step, is_scheduled=true, num_partitions=8\n\n"


def read(line, header=HEADER):
    return collectives(f"{header}ENTRY %main {{\n  {line}\n}}\n")


# What is sent


def ring_all_reduce(parts):
    """Add up arrays as a ring of devices does, message by message; the sums, and the bytes that each device sent."""
    devices = len(parts)
    held = [list(np.array_split(part.astype(np.float32), devices)) for part in parts]
    sent = [0] * devices
    for phase in ("add", "hand on"):
        for turn in range(devices - 1):
            messages = []
            for device in range(devices):
                which = (device - turn + (phase == "hand on")) % devices
                messages.append((device, (device + 1) % devices, which, held[device][which].copy()))
            for sender, receiver, which, piece in messages:
                sent[sender] += piece.nbytes
                held[receiver][which] = held[receiver][which] + piece if phase == "add" else piece
    return [np.concatenate(pieces) for pieces in held], sent


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_a_ring_that_is_played_through_sends_what_the_formula_says(devices):
    parts = [np.arange(240.0) * (device + 1) for device in range(devices)]
    sums, sent = ring_all_reduce(parts)
    assert all(np.array_equal(one, sum(parts)) for one in sums)
    assert sent == [ring_bytes("all-reduce", 240 * 4, devices)] * devices


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather():
    halves = ring_bytes("reduce-scatter", 800, 8) + ring_bytes("all-gather", 800, 8)
    assert halves == ring_bytes("all-reduce", 800, 8) == 1400
    assert ring_bytes("all-to-all", 800, 8) == 700
    assert ring_bytes("collective-permute", 800, 8) == 800
    assert all(ring_bytes(kind, 800, 1) == 0 for kind in scaling.KINDS)


@pytest.mark.parametrize(
    ("line", "kind", "tensors", "size", "devices"),
    [
        (
            "%all-reduce.1 = f32[3,3,1,8]{3,2,1,0} all-reduce(%a), channel_id=1, "
            "replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, to_apply=%sum",
            "all-reduce", 1, 288, 8,
        ),
        (
            "%all-reduce.2 = (f32[], bf16[8]{0}, /*index=2*/pred[3]{0}) all-reduce(%a, %b, %c), "
            "replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum",
            "all-reduce", 3, 4 + 16 + 3, 4,
        ),
        ("%r = s32[10]{0} all-reduce(%a), replica_groups={}, to_apply=%sum", "all-reduce", 1, 40, 8),
        ("%g = f32[16,4]{1,0} all-gather(%a), replica_groups=[2,4]<=[8], dimensions={0}", "all-gather", 1, 256, 4),
        (
            "%g = (f32[2,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%a), replica_groups=[1,8]<=[8], dimensions={0}",
            "all-gather", 1, 256, 8,
        ),
        (
            "%s = f16[2,4]{1,0} reduce-scatter(%a), replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}, to_apply=%sum",
            "reduce-scatter", 1, 32, 2,
        ),
        (
            "%t = (f32[4]{0}, f32[4]{0}) all-to-all(%a, %b), replica_groups={{0,1},{2,3},{4,5},{6,7}}",
            "all-to-all", 2, 32, 2,
        ),
        ("%p = f64[5]{0} collective-permute(%a), source_target_pairs={{0,1},{1,2}}", "collective-permute", 1, 40, 8),
        (
            "%p = (f32[5]{0}, f32[5]{0}, u32[], u32[]) collective-permute-start(%a), source_target_pairs={{0,1}}",
            "collective-permute", 1, 20, 8,
        ),
        (
            "%m = f32[2]{0} all-reduce(%a), replica_groups=mesh['batch'=2,'model'=4] {'batch','model':(1)2}, to_apply=%s",
            "all-reduce", 1, 8, 4,
        ),
    ],
)  # fmt: skip
def test_each_way_to_write_a_collective_is_read(line, kind, tensors, size, devices):
    assert read(line) == (Collective(kind, tensors, size, devices),)


def test_what_only_mentions_a_collective_or_ends_one_is_none():
    assert read("%x = f32[8]{0} get-tuple-element(%all-reduce.28), index=0") == ()
    assert read("%x = f32[2,48]{1,0} fusion(%convolution, %all-reduce), kind=kLoop") == ()
    assert read("%x = f32[8]{0} all-reduce-done(%all-reduce-start.1)") == ()


def test_the_operation_behind_a_collective_is_kept():
    (one,) = read(
        '%r = f32[8]{0} all-reduce(%a), replica_groups={{0,1}}, metadata={op_name="jit(f)/encoder_1_norm/sum" id=5}'
    )
    assert one.source == "jit(f)/encoder_1_norm/sum" and one.devices == 2
    assert one.sent == 32


def test_a_text_of_another_kind_is_one_sentence():
    with pytest.raises(ValueError, match=r"text begins with 'module @jit_f'; it must be a compiled program"):
        collectives("module @jit_f")
    with pytest.raises(ValueError, match="devices of a collective are not understood"):
        read("%r = f32[8]{0} all-reduce(%a), replica_groups=@somewhere")


def test_the_table_adds_up_by_kind_and_number_of_devices():
    found = [
        Collective("all-gather", 1, 800, 8),
        Collective("all-reduce", 3, 8000, 8),
        Collective("all-reduce", 1, 16, 8),
        Collective("all-reduce", 1, 100, 2),
    ]
    rows = [line.split() for line in table(found).splitlines()[1:]]
    assert rows == [
        ["all-reduce", "2", "1", "1", "100", "100"],
        ["all-reduce", "8", "2", "4", "8,016", "14,028"],
        ["all-gather", "8", "1", "1", "800", "700"],
    ]
    assert len({len(line) for line in table(found).splitlines()}) == 1
    assert table([]) == "nothing is sent"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("all-reduction", 8, 2), "kind is 'all-reduction'; it must be one of 'all-reduce'"),
        (("all-reduce", -1, 2), "size is -1"),
        (("all-reduce", 8, 0), "devices is 0; it must be at least 1"),
    ],
)
def test_bad_arguments_of_a_ring_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        ring_bytes(*arguments)


# How long that takes


def test_the_time_of_an_all_reduce_has_a_part_for_bytes_and_a_part_for_messages():
    assert Wire(100.0).seconds(1000, 2) == pytest.approx(10.0)
    assert Wire(1e30, 0.5).seconds(1000, 5) == pytest.approx(4.0)
    assert Wire(100.0, 3.0).seconds(1000, 1) == 0


def test_efficiency_falls_with_devices_and_rises_with_overlap():
    wire = Wire(1e9, 1e-5)
    shares = [efficiency(n, 0.1, 1e8, wire) for n in (1, 2, 8, 64, 1024)]
    assert shares[0] == 1 and all(a > b for a, b in zip(shares, shares[1:], strict=False))
    assert efficiency(2, 0.1, 1e8, wire) == pytest.approx(0.1 / (0.1 + 0.1 + 2e-5))
    assert efficiency(8, 0.1, 1e8, wire) < efficiency(8, 0.1, 1e8, wire, overlap=0.5) < 1
    assert efficiency(8, 1.0, 1e8, wire, overlap=0.5) == 1  # all of it is hidden


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Wire(0), "bandwidth is 0"),
        (lambda: Wire(1, -1), "latency -1"),
        (lambda: efficiency(2, 0, 1, Wire(1)), "compute is 0"),
        (lambda: efficiency(2, 1, 1, Wire(1), overlap=2), "overlap is 2"),
        (lambda: efficiency(0, 1, 1, Wire(1)), "devices is 0"),
    ],
)
def test_bad_arguments_of_a_plan_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Processes that start together

WHO = """
import json, os, sys
names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
print(json.dumps([*(os.environ["KERAS_DISTRIBUTION_" + name] for name in names), os.environ["XLA_FLAGS"], *sys.argv[1:]]))
"""


@pytest.fixture
def script(tmp_path):
    def write(source):
        path = tmp_path / "script.py"
        path.write_text(source, encoding="utf-8")
        return path

    return write


def test_each_process_knows_how_many_there_are_and_which_it_is(script, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_other=1")
    found = [json.loads(text) for text in launch(script(WHO), 3, 4, arguments=["--quick"])]
    assert [rank for _, _, rank, *_ in found] == ["0", "1", "2"]
    assert {(count, flags, more) for _, count, _, flags, more in found} == {
        ("3", "--xla_other=1 --xla_force_host_platform_device_count=4", "--quick")
    }
    (address,) = {address for address, *_ in found}
    assert address.startswith("127.0.0.1:") and int(address.rpartition(":")[2]) > 0
    assert "KERAS_DISTRIBUTION_PROCESS_ID" not in os.environ


def test_a_variable_of_one_s_own_counts_and_the_library_is_found(script):
    source = "import os, course_lib.chapters.ch11_scaling_out.scaling; print(os.environ['KERAS_BACKEND'])"
    assert launch(script(source), 1, environment={"KERAS_BACKEND": "tensorflow"}) == ["tensorflow\n"]


def test_when_one_fails_the_others_are_stopped(script):
    source = """
import os, time
if os.environ["KERAS_DISTRIBUTION_PROCESS_ID"] == "1":
    raise RuntimeError("no such picture")
time.sleep(60)
"""
    start = time.monotonic()
    with pytest.raises(
        LaunchError, match="process 1 of 2 failed, and all are stopped: RuntimeError: no such picture"
    ):
        launch(script(source))
    assert time.monotonic() - start < 30


def test_a_process_that_does_not_end_is_stopped_and_named(script, tmp_path):
    source = f"""
import os, time
rank = os.environ["KERAS_DISTRIBUTION_PROCESS_ID"]
if rank == "1":
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    time.sleep(60)
"""
    with pytest.raises(LaunchError, match=r"after 2 seconds process 1 of 2 had not ended"):
        launch(script(source), seconds=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_much_output_stops_nobody(script):
    (text,) = launch(script("print('x' * 1_000_000)"), 1)
    assert len(text) == 1_000_001


def test_a_script_that_is_not_there_and_no_processes_are_one_sentence(script, tmp_path):
    with pytest.raises(ValueError, match="no-such.py'; there is no such file"):
        launch(tmp_path / "no-such.py")
    with pytest.raises(ValueError, match="processes is 0"):
        launch(script(""), 0)
    with pytest.raises(ValueError, match="devices is 0"):
        launch(script(""), 1, 0)
