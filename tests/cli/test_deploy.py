"""``bitenc deploy`` and ``bitenc doctor`` against a server on loopback, as a user runs them."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.deploy.serve import Server, free_port
from tvm_bitenc.nn import QConv2d


@pytest.fixture(scope="module")
def server():
    with Server(port=0) as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model file, its library, and one of other weights."""
    folder, x = tmp_path_factory.mktemp("models"), torch.randn(1, 3, 6, 6)
    for seed in 0, 1:
        torch.manual_seed(seed)
        model = nn.Sequential(QConv2d(3, 8, 3, weight_bits=2, act_bits=2)).eval()
        torch.export.save(torch.export.export(model, (x,)), folder / f"{seed}.pt2")
        be.build(be.from_torch(model, (x,)), threads=1).export_library(folder / f"{seed}.so")
    np.save(folder / "x.npy", x.numpy())
    return folder


@pytest.mark.slow
def test_it_compares_with_the_model_and_times_layers(bitenc, server, files):
    code, printed = bitenc(
        *("deploy", files / "0.so", "--port", server.port, "--model", files / "0.pt2"),
        *("--input", files / "x.npy", "--number", 2),
    )
    assert not code
    assert "128 output elements, 0 differ from the model compiled here" in printed.out
    assert "us per run, by kernel" in printed.out and "conv2d" in printed.out


def test_json_without_a_model(bitenc, server, files):
    code, printed = bitenc("deploy", files / "0.so", "--port", server.port, "--json")
    content = json.loads(printed.out)
    assert not code and content["elements"] == 128 and content["differences"] is None
    assert len(content["seconds"]) == 10 and content["layers"]


def test_another_model_differs(bitenc, server, files):
    code, printed = bitenc(
        "deploy", files / "1.so", "--port", server.port, "--model", files / "0.pt2"
    )
    assert "elements otherwise than" in code and "0.pt2 does here" in code
    assert "128 output elements, 0 differ" not in printed.out


def test_errors_are_one_line(bitenc, files, tmp_path):
    port, array = free_port(), tmp_path / "x.npy"
    array.write_bytes(b"no array")
    for options, message in [
        (["--port", port], "can't be reached"),
        (["--port", port, "--tracker", "--key", "pi"], "can't be reached"),
        (["--input", array], "isn't an array"),
    ]:
        code, printed = bitenc("deploy", files / "0.so", *options)
        assert message in code and "\n" not in code and "Traceback" not in printed.err
    assert "can't be read" in bitenc("deploy", tmp_path / "none.so")[0]
    assert "isn't HOST:PORT" in bitenc("serve", "--tracker", "somewhere")[0]


def test_doctor_sees_the_device(bitenc, server):
    code, printed = bitenc("doctor", "--host", "127.0.0.1", "--port", server.port, "--json")
    checks = {(x["side"], x["name"]): x for x in json.loads(printed.out)}
    assert not code
    assert checks["device", "TVM"]["is_ok"] and checks["device", "disk"]["is_ok"]
    assert checks["device", "CPU"]["found"].startswith(checks["here", "CPU"]["found"].split()[0])
    code, printed = bitenc("doctor", "--host", "127.0.0.1", "--port", server.port)
    assert not code and "This machine" in printed.out and "The device" in printed.out


def test_doctor_without_a_device_to_reach(bitenc):
    code, printed = bitenc("doctor", "--host", "127.0.0.1", "--port", free_port())
    assert code == 1 and "MISSING" in printed.out and "bitenc serve" in printed.out
