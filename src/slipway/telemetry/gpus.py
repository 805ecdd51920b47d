"""Use and memory of the NVIDIA GPUs of this machine, as NVML says.

NVML is the driver's own library; `nvidia-ml-py` (the extra `gpu`) calls it. Both are loaded when the
first value is asked for. A machine without a GPU has no such metrics.
"""

import logging
import time
from collections.abc import Iterator
from threading import Lock
from typing import Any

from slipway.telemetry.gauges import GaugeRow

log = logging.getLogger("slipway")
EXTRA = "slipway[gpu]"
FRESH_S = 1.0  # values are not read again within this time


class Gpus:
    """The GPUs of this machine. `sample` blocks, so that a thread should call it."""

    def __init__(self, *, wanted: bool | None) -> None:
        """`wanted`: False never looks for GPUs; True says in the log if there are none."""
        self.wanted = wanted
        self.rows: list[GaugeRow] = []
        self._nvml: Any = None
        self._opened = wanted is False
        self._sampled_at = float("-inf")
        self._lock = Lock()

    @property
    def may_be_there(self) -> bool:
        """Return whether there are GPUs, as far as is known."""
        return not self._opened or self._nvml is not None

    def sample(self) -> None:
        """Read the values, unless that was just done."""
        with self._lock:
            if time.monotonic() - self._sampled_at < FRESH_S:
                return
            if not self._opened:
                self._opened, self._nvml = True, self._open()
            if self._nvml is not None:
                self.rows = list(self._read(self._nvml))
            self._sampled_at = time.monotonic()

    def _open(self) -> Any:
        """Return NVML, ready to be asked; None if there is none."""
        try:
            import pynvml
        except ImportError:
            if self.wanted:
                log.warning(
                    "metrics.gpu: GPUs are not measured: the extra is missing; pip install '%s'",
                    EXTRA,
                )
            return None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if self.wanted:
                log.warning("metrics.gpu: GPUs are not measured: NVML says: %s", error)
            return None
        return pynvml

    def _read(self, nvml: Any) -> Iterator[GaugeRow]:
        """Yield the values of each GPU; what one does not report is left out."""
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            return
        for number, handle in enumerate(handles):
            labels = (str(number),)
            try:
                use = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
                yield "gpu_use", labels, use / 100
            except nvml.NVMLError:  # as on a GPU that is divided (MIG)
                pass
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                yield "gpu_memory_used", labels, memory.used
                yield "gpu_memory", labels, memory.total
            except nvml.NVMLError:
                pass

    def close(self) -> None:
        """Give NVML back."""
        with self._lock:
            nvml, self._nvml, self.rows = self._nvml, None, []
            self._opened = True
            if nvml is not None:
                nvml.nvmlShutdown()
