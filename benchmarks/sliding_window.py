"""What a sliding window costs beyond the forward passes that it cannot do without.

    python benchmarks/sliding_window.py [--rounds 5] [--threads 1]

A volume of 4 x 240 x 240 x 155 voxels whose foreground is an ellipsoid, windows of 128^3, overlap 0.5, Gaussian
blending, and a nearly free network (a 1x1x1 convolution to five labels). The yardstick is that network on the windows
that hold foreground; medexp and MONAI are timed in turns with it, in one process, and the least of all rounds counts:
processor time, which a busy machine does not distort, on one thread. Peak memory is measured in a fresh process each.
Targets: at most 1.8 x the yardstick; no more extra memory than MONAI; equal to MONAI to 1e-5 where nothing is skipped,
and in the foreground in any case.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medexp.inference.sliding_window import SlidingWindow

SHAPE, WINDOW, LABELS, OVERLAP = (240, 240, 155), (128, 128, 128), 5, 0.5
LIMIT_RATIO, LIMIT_DIFFERENCE = 1.8, 1e-5
# Half axes and center in voxels. The first foreground touches all 18 windows, the second 12 of them.
FOREGROUNDS = {
    "large foreground": ((68, 85, 66), (120, 122, 77)),
    "small foreground": ((35, 45, 35), (70, 120, 77)),
}
BACKGROUND = (20.0, 0.0, 0.0, 0.0, 0.0)
SKIPPING, WHOLE = (SlidingWindow(overlap=OVERLAP, batch_size=1, skip_background=skip) for skip in (True, False))


def make_volume(axes: tuple[int, ...], center: tuple[int, ...]) -> Tensor:
    """Return noise inside an ellipsoid and zeros around it."""
    positions = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in SHAPE), indexing="ij")
    inside = sum(((at - middle) / half) ** 2 for at, middle, half in zip(positions, center, axes, strict=True)) < 1
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)) * inside


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv3d(4, LABELS, 1).eval()


def run_ours(volume: Tensor, network: nn.Module, *, window: SlidingWindow = SKIPPING) -> Tensor:
    return window(network, volume, patch_size=WINDOW, background=BACKGROUND)


@torch.no_grad()
def run_monai(volume: Tensor, network: nn.Module) -> Tensor:
    from monai.inferers import sliding_window_inference

    return sliding_window_inference(volume[None], WINDOW, 1, network, overlap=OVERLAP, mode="gaussian")[0]


@torch.no_grad()
def run_windows(volume: Tensor, network: nn.Module) -> int:
    """Run the network on the windows that hold foreground and return their number."""
    parts = [volume[(slice(None), *place)] for place in SKIPPING.places(SHAPE, WINDOW)]
    held = [part for part in parts if part[:, ::4, ::4, ::4].any()]
    for part in held:
        network(part[None])
    return len(held)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def extra_memory_gb(runner: Callable[..., Tensor], path: Path, threads: int) -> float:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_extra_memory, (runner, path, threads))


def _extra_memory(runner: Callable[..., Tensor], path: Path, threads: int) -> float:
    import monai.inferers  # noqa: F401 - its memory is not the window's

    torch.set_num_threads(threads)
    network = make_network()
    with torch.no_grad():
        network(torch.zeros(1, 4, *WINDOW))
    volume = torch.from_numpy(np.load(path))
    before = peak_gb()
    runner(volume, network)
    return peak_gb() - before


def peak_gb() -> float:
    """Return the most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # the other clock is inherited from the parent on Linux
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def compare(name: str, volume: Tensor, rounds: int) -> float:
    network = make_network()
    work = {"forward": run_windows, "medexp": run_ours, "monai": run_monai}
    found = [{key: seconds(lambda run=run: run(volume, network)) for key, run in work.items()} for _ in range(rounds)]
    least = {key: [min(one[key][clock] for one in found) for clock in (0, 1)] for key in work}
    print(f"{name}: {run_windows(volume, network)} windows hold foreground")
    for key in work:
        wall, processor = (least[key][clock] / least["forward"][clock] for clock in (0, 1))
        print(
            f"  {key:8} {least[key][1]:6.3f} s, {processor:4.2f} x the forward time (by the wall clock {wall:4.2f} x)"
        )
    return least["medexp"][1] / least["forward"][1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    volumes = {name: make_volume(*shape) for name, shape in FOREGROUNDS.items()}
    ratio = max(compare(name, volume, options.rounds) for name, volume in volumes.items())
    volume, network = volumes["large foreground"], make_network()
    wanted = run_monai(volume, network)
    whole = (run_ours(volume, network, window=WHOLE) - wanted).abs().max().item()
    inside = (run_ours(volume, network) - wanted).abs()[:, (volume != 0).any(0)].max().item()
    print(f"difference from MONAI: {whole:.1e} without skipping, {inside:.1e} in the foreground with it")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.npy"
        np.save(path, volume.numpy())
        ours, theirs = (extra_memory_gb(runner, path, options.threads) for runner in (run_ours, run_monai))
    print(f"peak extra memory: medexp {ours:.3f} GB, MONAI {theirs:.3f} GB, ratio {ours / theirs:.2f}")
    good = ratio <= LIMIT_RATIO and max(whole, inside) <= LIMIT_DIFFERENCE and ours <= theirs * 1.01
    print(f"{'met' if good else 'MISSED'}: at most {LIMIT_RATIO} x, {LIMIT_DIFFERENCE:.0e} and MONAI's memory")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
