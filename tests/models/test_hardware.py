"""Which precision the device has, read from what it says of itself."""

import logging
from pathlib import Path

import pytest
import torch

from ric_diffusion.io import extras
from ric_diffusion.io.errors import InputError
from ric_diffusion.models import hardware
from ric_diffusion.models.hardware import (
    SLOWDOWN,
    default_device,
    resolve_base_precision,
    resolve_precision,
)
from scorers import hardware as processor
from scorers.hardware import has_bf16

CPUINFO = "processor\t: 0\nmodel name\t: some\n{key}\t\t: fpu sse2 {flags}\nbugs\t\t: none\n"


@pytest.fixture(autouse=True)
def forgetful():
    """What is asked once in a process is asked anew in every test."""
    for function in (processor._cpu_has_bf16, hardware._warn_of_slow_bf16):
        function.cache_clear()
    yield
    for function in (processor._cpu_has_bf16, hardware._warn_of_slow_bf16):
        function.cache_clear()


@pytest.fixture
def cpu(monkeypatch):
    """cpu("AVX2", "avx2 fma") is a processor; without flags, a system without /proc/cpuinfo."""

    def have(capability, flags=None, key="flags"):
        def read_text(path, *args, **kwargs):
            assert path == Path("/proc/cpuinfo")
            if flags is None:
                raise FileNotFoundError(str(path))
            return CPUINFO.format(key=key, flags=flags)

        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(processor.Path, "read_text", read_text)

    return have


@pytest.mark.parametrize(
    ("capability", "flags", "has"),
    [
        ("AVX2", "avx2 fma f16c", False),
        ("DEFAULT", "avx512f avx512_bf16", False),  # torch is told to use none of it
        ("AVX2", "avx512f avx512_bf16 amx_bf16", False),
        ("AVX512", "avx2 avx512f avx512_vnni", False),  # before Cooper Lake
        ("AVX512", "avx512f avx512_bf16", True),
        ("AVX512", "avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("AVX512", "avx512f avx512_bf16_of_another_name", False),
        ("unknown", "", False),
    ],
)
def test_a_processor(cpu, capability, flags, has):
    cpu(capability, flags)
    assert has_bf16("cpu") is has
    assert resolve_precision("auto", "cpu") == ("bf16" if has else "fp32")


@pytest.mark.parametrize(("flags", "has"), [("asimd fp16 bf16 i8mm", True), ("asimd fp16", False)])
def test_an_arm_processor(cpu, flags, has):
    cpu("SVE256", flags, key="Features")
    assert has_bf16("cpu") is has


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_without_cpuinfo_is_asked_through_torch(cpu, monkeypatch, has):
    cpu("AVX512")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert has_bf16("cpu") is has


@pytest.mark.parametrize(
    ("capability", "has"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((9, 0), True)]
)
def test_a_gpu_by_its_compute_capability(monkeypatch, capability, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bf16("cuda") is has
    assert has_bf16(torch.device("cuda:0")) is has
    assert resolve_precision("auto", "cuda") == ("bf16" if has else "fp32")


def test_an_unknown_device_computes_in_full():
    assert not has_bf16("meta")
    assert resolve_precision("auto", "meta") == "fp32"


def test_the_default_device_is_the_gpu_if_there_is_one(monkeypatch):
    for found, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: found)
        assert default_device() == device


def test_bf16_is_obeyed_where_it_is_slow_with_one_warning(cpu, caplog):
    cpu("AVX2", "avx2")
    assert [resolve_precision("bf16", "cpu") for _ in range(3)] == ["bf16"] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"can take {SLOWDOWN} times as long as fp32" in record.message
    assert record.message.startswith("precision: ") and "\n" not in record.message


def test_what_is_asked_for_and_there_is_not_spoken_of(cpu, caplog):
    caplog.set_level(logging.INFO, "ric_diffusion")
    cpu("AVX512", "avx512_bf16")
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("fp32", "cpu") == "fp32"
    cpu("AVX2", "avx2")
    assert resolve_precision("fp32", "cpu") == "fp32"
    assert not caplog.messages


@pytest.fixture
def gpu(monkeypatch):
    """gpu(8, 0) has that compute capability, and bitsandbytes."""

    def have(*capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(hardware, "require", lambda extra, what: None)

    return have


@pytest.mark.parametrize(
    ("base", "passes", "new", "old"),
    [
        ("auto", "auto", ("bf16", "bf16"), ("fp16", "fp16")),
        ("auto", "fp32", ("fp32", "fp32"), ("fp32", "fp32")),
        ("auto", "fp16", ("fp16", "fp16"), ("fp16", "fp16")),
        ("auto", "bf16", ("bf16", "bf16"), ("bf16", "bf16")),
        ("fp32", "auto", ("fp32", "bf16"), ("fp32", "fp32")),
        ("fp32", "fp16", ("fp32", "fp16"), ("fp32", "fp16")),
        ("bf16", "auto", ("bf16", "bf16"), ("bf16", "bf16")),
        ("fp16", "auto", ("fp16", "fp16"), ("fp16", "fp16")),
        ("int8", "auto", ("int8", "bf16"), ("int8", "fp16")),
        ("nf4", "auto", ("nf4", "bf16"), ("nf4", "fp16")),
    ],
)
def test_weights_and_passes_on_a_gpu(gpu, base, passes, new, old):
    for capability, wanted in (((8, 0), new), ((7, 5), old)):
        gpu(*capability)
        found = resolve_base_precision(base, passes, "cuda")
        assert found == wanted
        assert resolve_base_precision(*found, "cuda") == found


@pytest.mark.parametrize(
    ("base", "passes", "wanted"),
    [
        ("auto", "auto", ("fp32", "bf16")),
        ("auto", "fp32", ("fp32", "fp32")),
        ("auto", "bf16", ("fp32", "bf16")),
        ("bf16", "auto", ("bf16", "bf16")),
    ],
)
def test_weights_and_passes_on_a_cpu(cpu, base, passes, wanted):
    cpu("AVX512", "avx512_bf16")
    assert resolve_base_precision(base, passes, "cpu") == wanted


@pytest.mark.parametrize(
    ("device", "base", "passes", "said"),
    [
        ("cpu", "auto", "fp16", "precision: fp16 needs a GPU with CUDA, and this is a cpu"),
        ("cpu", "fp32", "fp16", "precision: fp16 needs a GPU"),
        ("cpu", "fp16", "auto", "base_precision: fp16 needs a GPU with CUDA, and this is a cpu"),
        ("cpu", "int8", "auto", "base_precision: int8 needs a GPU"),
        ("cpu", "nf4", "bf16", "base_precision: nf4 needs a GPU"),
        ("cpu", "bf16", "fp32", "precision: fp32 is not what weights in bf16 are computed with"),
        ("cuda", "fp16", "bf16", "in fp16 are computed with, which is fp16 here"),
        ("cuda", "nf4", "fp32", "in nf4 are computed with, which is bf16 here"),
    ],
)
def test_what_cannot_be_together_is_one_line(gpu, device, base, passes, said):
    gpu(8, 0)
    with pytest.raises(InputError) as error:
        resolve_base_precision(base, passes, device)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_quantised_weights_need_their_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"base_precision int8: bitsandbytes is not installed; pip"
    ):
        resolve_base_precision("int8", "auto", "cuda")
