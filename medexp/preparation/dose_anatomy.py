"""The organs and targets of a synthetic pelvis and of a synthetic neck; every patient's differ."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from medexp.preparation.arc_dose import Body
from medexp.preparation.dose_scene import Mask, Point, Scene

_SIDES = (("L", 1.0), ("R", -1.0))


def pelvic_organs(scene: Scene) -> dict[str, Bool[np.ndarray, "i j k"]]:
    """Return targets and organs of a prostate patient; every third has no pelvic nodes in PTV56."""
    center = scene.moved((0.0, 0.0, -12.0), 5.0)
    radii = (scene.around(25.0), scene.around(20.0), scene.around(23.0))
    prostate = scene.ellipsoid(center, radii)
    x, y, z = center
    high = scene.ellipsoid((x, y - 1.0, z), _grown(radii, 7.0))
    low = scene.ellipsoid((x, y, z), _grown(radii, 10.0)) | high
    for _, side in _SIDES:  # seminal vesicles
        low |= scene.ellipsoid((x + side * 13.0, y + 12.0, z + radii[2] + 5.0), (20.0, 15.0, 17.0))
    if scene.random.random() < 0.67:
        apart = scene.around(46.0, 0.1)
        for _, side in _SIDES:
            low |= scene.tube((x + side * apart, y - 2.0), (15.0, 21.0), (z + 18.0, 74.0), bow_mm=(side * 6.0, 0.0))
    bladder = scene.ellipsoid(
        (x, y - scene.around(30.0), z + scene.around(40.0)), (scene.around(36.0, 0.25), scene.around(27.0, 0.25), 27.0)
    )
    rectum = scene.tube(
        (x + scene.random.uniform(-4.0, 4.0), y + radii[1] + 22.0),
        (scene.around(15.0, 0.25), scene.around(15.0, 0.2)),
        (z - 46.0, z + 62.0),
        bow_mm=(scene.random.uniform(-8.0, 8.0), scene.random.uniform(-7.0, -1.0)),
    )
    organs = {"PTV70": high, "PTV56": low, "Prostate": prostate, "Rectum": rectum & ~prostate}
    organs["Bladder"] = bladder & ~prostate & ~rectum
    for name, side in _SIDES:
        head = scene.moved((side * 92.0, 8.0, -6.0), 3.0)
        organs[f"Femur_{name}"] = scene.ellipsoid(head, (24.0, 24.0, 24.0)) | scene.tube(
            (head[0] + side * 22.0, head[1] + 4.0), (18.0, 18.0), (-92.0, -10.0)
        )
    organs["Bowel"] = _bowel(scene) & ~organs["Bladder"] & ~organs["Rectum"]
    return organs


def _bowel(scene: Scene) -> Mask:
    loops = scene.nothing()
    for _ in range(7):
        place = (scene.random.uniform(-70.0, 70.0), scene.random.uniform(-62.0, 5.0), scene.random.uniform(56.0, 90.0))
        loops |= scene.ellipsoid(place, (scene.around(30.0), scene.around(18.0), scene.around(14.0)))
    return loops


def pelvic_bones(scene: Scene, organs: Mapping[str, Bool[np.ndarray, "i j k"]]) -> Mask:
    """Return femora, hip bones, sacrum and pubic bones."""
    bones = organs["Femur_L"] | organs["Femur_R"]
    for name, side in _SIDES:
        socket = scene.ellipsoid((side * 84.0, 8.0, 2.0), (36.0, 34.0, 34.0))
        wing = scene.ellipsoid((side * 95.0, 25.0, 65.0), (16.0, 48.0, 42.0))
        pubis = scene.ellipsoid((side * 30.0, -38.0, -28.0), (34.0, 12.0, 13.0))
        bones |= (socket & ~scene.ellipsoid((side * 88.0, 8.0, -4.0), (29.0, 29.0, 29.0))) | wing | pubis
        bones |= organs[f"Femur_{name}"]
    bones |= scene.ellipsoid((0.0, 82.0, 45.0), (42.0, 17.0, 55.0))
    soft = organs["Prostate"] | organs["Bladder"] | organs["Rectum"] | organs["Bowel"]
    return bones & ~soft


def neck_organs(scene: Scene, body: Body, *, absent: Sequence[str]) -> dict[str, Bool[np.ndarray, "i j k"]]:
    """Return targets and organs of a head-and-neck patient but those that are `absent`; its targets do not overlap."""
    side = float(scene.random.choice([-1.0, 1.0]))
    tumor = scene.moved((side * 18.0, 2.0, 8.0), 8.0)
    radii = (scene.around(24.0, 0.25), scene.around(24.0, 0.2), scene.around(30.0, 0.25))
    high = scene.ellipsoid(tumor, radii)
    middle = scene.ellipsoid((tumor[0], tumor[1] + 4.0, tumor[2] - 12.0), _grown(radii, 9.0))
    low = _nodes(scene, -side) | _nodes(scene, side)
    cord = scene.tube((0.0, 40.0), (6.0, 6.0), (-150.0, 22.0), bow_mm=(0.0, -7.0))
    if "PTV63" in absent:
        middle = high
    organs = {
        "PTV70": high,
        "PTV63": middle & ~high & ~cord,
        "PTV56": low & ~high & ~middle & ~cord,
        "Brainstem": scene.ellipsoid(scene.moved((0.0, 28.0, 52.0), 4.0), (13.0, 12.0, scene.around(26.0))),
        "SpinalCord": cord,
        "RightParotid": scene.ellipsoid(scene.moved((-54.0, 12.0, 26.0), 3.0), (12.0, 20.0, 25.0)),
        "LeftParotid": scene.ellipsoid(scene.moved((54.0, 12.0, 26.0), 3.0), (12.0, 20.0, 25.0)),
        "Esophagus": scene.tube((0.0, 16.0), (8.0, 7.0), (-150.0, -62.0)),
        "Mandible": _jaw(scene),
        "Larynx": scene.ellipsoid(scene.moved((0.0, -20.0, -40.0), 5.0), (17.0, 17.0, scene.around(20.0))),
    }
    inside = body.radius < 0.94
    return {name: mask & inside for name, mask in organs.items() if name not in absent}


def _nodes(scene: Scene, side: float) -> Mask:
    """Return the lymph nodes of one side."""
    return scene.tube((side * 33.0, 10.0), (15.0, 20.0), (-88.0, scene.around(34.0)), bow_mm=(side * 6.0, 0.0))


def _jaw(scene: Scene) -> Mask:
    """Return a horseshoe that is open to the back."""
    outer = scene.ellipsoid((0.0, -20.0, 14.0), (56.0, 58.0, 19.0))
    inner = scene.ellipsoid((0.0, -20.0, 14.0), (45.0, 46.0, 40.0))
    return outer & ~inner & (scene.y < np.float32(0.0))


def neck_bones(scene: Scene, organs: Mapping[str, Bool[np.ndarray, "i j k"]]) -> Mask:
    """Return spine, jaw and skull."""
    spine = scene.tube((0.0, 36.0), (16.0, 17.0), (-150.0, 24.0), bow_mm=(0.0, -7.0))
    skull = scene.ellipsoid((0.0, 0.0, 95.0), (70.0, 88.0, 70.0)) & ~scene.ellipsoid(
        (0.0, 0.0, 95.0), (63.0, 81.0, 63.0)
    )
    bones = spine | skull | organs.get("Mandible", scene.nothing())
    return bones & ~organs.get("SpinalCord", scene.nothing())


def _grown(radii: Point, by_mm: float) -> Point:
    x, y, z = radii
    return (x + by_mm, y + by_mm, z + by_mm)
