"""TensorBoard's own reader reads what fieldnet wrote: tags, steps, values, images."""
import glob
import io
import os
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as reason:
    print(f"skipped: the tensorboard Python package is not there ({reason})")
    sys.exit(77)
try:
    from PIL import Image
except ImportError:
    Image = None

STEPS, EPOCHS = 5, 3


def read(folder):
    """Scalars {tag: {step: value}} and images {tag: {step: bytes}} of all starts of one run."""
    scalars, images = {}, {}
    starts = sorted(glob.glob(os.path.join(folder, "tensorboard", "*")))
    assert len(starts) == 2, starts
    for start in starts:
        accumulator = EventAccumulator(start, size_guidance={"images": 0, "scalars": 0})
        accumulator.Reload()
        tags = accumulator.Tags()
        for tag in tags["scalars"]:
            for event in accumulator.Scalars(tag):
                steps = scalars.setdefault(tag, {})
                assert event.step not in steps, (tag, event.step, "twice")
                steps[event.step] = event.value
        for tag in tags["images"]:
            for event in accumulator.Images(tag):
                steps = images.setdefault(tag, {})
                assert event.step not in steps, (tag, event.step, "twice")
                steps[event.step] = event
    return scalars, images


def check_scalars(scalars):
    batch = {
        "loss/batch/train": lambda step: 1 / step,
        "grad/first": lambda step: 0.5,
        "grad/last": lambda step: 0.25,
        "grad/norm": lambda step: 3 / step,
        "lr": lambda step: 1e-4,
        "throughput/samples_per_second": lambda step: 4,
        "memory/peak_bytes": lambda step: 2**20,
    }
    for tag, value in batch.items():
        assert sorted(scalars[tag]) == list(range(1, STEPS * EPOCHS + 1)), (tag, scalars[tag])
        for step, found in scalars[tag].items():
            assert abs(found - value(step)) <= 1e-6 * value(step), (tag, step, found)
    assert sorted(scalars["loss/epoch/train"]) == [1, 2, 3]
    assert sorted(scalars["loss/epoch/val"]) == [2, 3]  # not a number in epoch 1
    assert abs(scalars["loss/epoch/val"][2] - 1) < 1e-6


def check_images(images):
    assert sorted(images) == ["fig/train", "fig/train/power/lag"], sorted(images)
    for tag, steps in images.items():
        assert sorted(steps) == [1, 2, 3], (tag, sorted(steps))
        for event in steps.values():
            assert event.encoded_image_string[:8] == b"\x89PNG\r\n\x1a\n"
            if Image is None:
                continue
            picture = Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")
            assert picture.size == (event.width, event.height), (tag, picture.size)
            colors = picture.getcolors(maxcolors=1 << 20)
            assert len(colors) > 50, (tag, "is almost empty")


def main():
    writer = os.path.join(os.environ["BUILD_DIR"], "tests", "test_report")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([writer, folder], check=True)
        scalars, images = read(folder)
    check_scalars(scalars)
    check_images(images)
    print(f"{len(scalars)} scalar tags, {len(images)} image tags read back")


if __name__ == "__main__":
    main()
