"""What the training libraries say of this computer; prints one JSON object. Run in a process of its own."""

from __future__ import annotations

import json
import sys
from typing import Any


def probe() -> dict[str, Any]:
    """Torch build, devices, and whether 4-bit weights work; each failure is a sentence in the answer."""
    import torch

    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda_build": torch.version.cuda,
        "cuda_available": torch.cuda.is_available(),
        "cuda_devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "mps_available": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
    }
    found["four_bit"] = _four_bit("cuda" if torch.cuda.is_available() else "cpu")
    return found


def _four_bit(device: str) -> str:
    """`works on cpu`, or why not: a small matrix goes to NF4 and back."""
    import torch

    try:
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4")
        back = functional.dequantize_4bit(packed, state)
    except (ImportError, RuntimeError, OSError, AttributeError, ValueError) as error:
        return f"does not work: {type(error).__name__}: {error}"
    return f"works on {device}" if torch.allclose(back, torch.ones_like(back)) else "gives wrong numbers"


if __name__ == "__main__":
    json.dump(probe(), sys.stdout)
