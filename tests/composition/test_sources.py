import sys

import pytest

from medexp.composition.sources import UnresolvedNameError, resolve


@pytest.mark.parametrize(
    ("written", "defined"),
    [
        ("lightning.Trainer", "lightning.pytorch.trainer.trainer.Trainer"),
        ("torch.optim.AdamW", "torch.optim.adamw.AdamW"),
        ("torch.nn.Conv3d", "torch.nn.modules.conv.Conv3d"),
        ("torch.nn.functional.torch.load", "torch.serialization.load"),
        ("monai.networks.nets.SegResNet", "monai.networks.nets.segresnet.SegResNet"),
        ("monai.networks.nets.Unet", "monai.networks.nets.unet.UNet"),
        ("segmentation_models_pytorch.Unet", "segmentation_models_pytorch.decoders.unet.model.Unet"),
        ("rich.logging.RichHandler", "rich.logging.RichHandler"),
    ],
)
def test_re_exports_and_aliases_lead_to_the_definition(written, defined):
    assert resolve(written).path == defined


def test_nothing_is_imported(package):
    package(loud="raise SystemExit('imported')\nclass Quiet: ...\n")
    assert resolve("ownpackage.loud.Quiet").path == "ownpackage.loud.Quiet"
    assert "ownpackage.loud" not in sys.modules


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from ownpackage.home import Thing as Other", "Other"),
        ("from .home import Thing", "Thing"),
        ("from .home import *", "Thing"),
        ("import ownpackage.home as h\nOther = h.Thing", "Other"),
        ("try:\n    from .home import Thing\nexcept ImportError:\n    Thing = None", "Thing"),
        ("from . import home", "home.Thing"),
    ],
)
def test_every_kind_of_import_is_followed(package, source, name):
    package(home="__all__ = ['Thing']\nclass Thing: ...\nclass Hidden: ...\n", door=source)
    assert resolve(f"ownpackage.door.{name}").path == "ownpackage.home.Thing"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("ownpackage.door.made", "defines no class or function 'made'"),
        ("ownpackage.door.lazy", "defines no class or function 'lazy'"),
        ("ownpackage.door.Hidden", "defines no class or function 'Hidden'"),
        ("ownpackage.door.circle", "defines no class or function 'circle'"),
        ("ownpackage.door.gone", "defines no class or function 'gone'"),
        ("ownpackage.door.Class.method", "members of a class are no targets"),
        ("ownpackage.door", "is a module"),
        ("ownpackage.broken.Thing", "defines no class or function 'Thing'"),
        ("no_such_package.Thing", "no module 'no_such_package'"),
        ("_json.make_encoder", "no module '_json'"),
    ],
)
def test_what_source_does_not_show_is_unresolved(package, written, reason):
    package(
        home="__all__ = []\nclass Hidden: ...",
        broken="class Thing(:",
        circle="from .door import circle",
        door="""
        import functools
        from .circle import circle
        from .home import *
        made = functools.partial(print)
        lazy = lambda: None
        def __getattr__(name): ...
        class Class:
            def method(self): ...
        def gone(): ...
        del gone
        """,
    )
    with pytest.raises(UnresolvedNameError, match=reason):
        resolve(written)


def test_an_edited_module_is_read_again(package):
    package(door="class Old: ...")
    assert resolve("ownpackage.door.Old").is_class
    package(door="class New: ...\n")
    assert resolve("ownpackage.door.New").is_class
