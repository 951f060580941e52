"""Command lines of experiments that are as small as they can be and still real."""

TINY_UNET3D = (
    "model=unet3d",
    "trainer=debug",
    "hardware=cpu",
    "hardware.num_workers=0",
    "mock.num_patients=4",
    "dataset.roots=[${mock.root}]",
    "dataset.num_folds=2",
    "dataset.patch_size=[16,16,16]",
    "dataset.batch_size=2",
    "model.network.base_features=4",
    "tracking.enabled=false",
)


def small_brats(output: object) -> list[str]:
    """Return what makes two stages of `monai_ft` on a mock cohort below `output` a matter of seconds."""
    return [
        f"output_dir={output}",
        f"dataset.roots=[{output}/mock/brats]",
        "mock.shape=[40,40,40]",
        "dataset.patch_size=[32,32,32]",
        "model.weights=null",
        "model.network.init_filters=8",
        "model.curriculum.stage_1.freeze=[convInit]",
        "callbacks.last.every_n_steps=1",
        "hardware=cpu",
        "hardware.num_workers=0",
    ]
