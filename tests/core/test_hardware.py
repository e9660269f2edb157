"""Reading the computer, with drivers that are missing, silent or broken."""

import pynvml
import pytest

from tunedesk.core.hardware import GIB, Gpu, Hardware, choose_device, read_gpus, read_hardware, short_cpu_name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "Intel Core i7-9750H"),
        ("Intel(R) Xeon(R) Processor", "Intel Xeon"),
        ("AMD Ryzen 7 5800X 8-Core Processor", "AMD Ryzen 7 5800X"),
        ("Apple M3 Pro", "Apple M3 Pro"),
        ("CPU", "Processor"),
    ],
)
def test_that_processor_names_are_short(name: str, short: str) -> None:
    assert short_cpu_name(name) == short


def hardware(*gpus: Gpu, note: str = "") -> Hardware:
    return read_hardware().model_copy(update={"gpus": gpus, "gpu_note": note})


def gpu(index: int, free: float) -> Gpu:
    return Gpu(
        index=index,
        name=f"NVIDIA GeForce RTX 306{index}",
        total_bytes=12 * GIB,
        free_bytes=int(free * GIB),
        driver="580.1",
        compute_capability=(8, 6),
    )


def test_that_the_gpu_with_most_free_memory_is_chosen() -> None:
    device = choose_device(hardware(gpu(0, 3.0), gpu(1, 11.0)))
    assert (device.kind, device.name, device.free_bytes) == ("cuda", "GeForce RTX 3061", 11 * GIB)


def test_that_without_a_gpu_the_processor_is_chosen() -> None:
    assert choose_device(hardware(note="No NVIDIA driver is installed.")).kind in ("cpu", "mps")


def test_that_asking_for_a_missing_gpu_says_why() -> None:
    with pytest.raises(ValueError, match="No NVIDIA driver"):
        choose_device(hardware(note="No NVIDIA driver is installed."), "cuda")


@pytest.mark.parametrize("wanted", ["RTX 3060:12GiB", "RTX 3060:12", "RTX 3060: 12 gb"])
def test_that_a_card_can_be_imagined(wanted: str) -> None:
    device = choose_device(hardware(), wanted)
    assert (device.name, device.total_bytes, device.owned) == ("RTX 3060", 12 * GIB, False)


@pytest.mark.parametrize("wanted", ["RTX 3060:lots", "RTX 3060:", ":0", "warp", "RTX:-3GiB"])
def test_that_nonsense_is_no_device(wanted: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        choose_device(hardware(), wanted)


def test_that_a_missing_driver_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert read_gpus() == ((), "No NVIDIA driver is installed.")


def test_that_a_failing_driver_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", broken)
    gpus, note = read_gpus()
    assert gpus == ()
    assert "gave no full answer" in note


def test_that_two_gpus_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        total = 8 * GIB
        free = 7 * GIB

    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"580.1",
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _handle: Memory(),
        "nvmlDeviceGetName": lambda handle: f"NVIDIA card {handle}".encode(),
        "nvmlDeviceGetCudaComputeCapability": lambda _handle: (8, 9),
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    gpus, note = read_gpus()
    assert [(item.name, item.free_bytes, item.driver) for item in gpus] == [
        ("NVIDIA card 0", 7 * GIB, "580.1"),
        ("NVIDIA card 1", 7 * GIB, "580.1"),
    ]
    assert note == ""
