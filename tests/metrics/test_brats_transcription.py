"""The official BraTS programs written down a second time, slowly and plainly, against the fast implementation.

Nothing of `medexp.metrics` is used here but the table of surface elements, which test_monai_agreement.py checks on its
own: every lesion is dilated on its own in the whole volume, and every distance comes from a distance map.
"""

import numpy as np
import pytest
from scipy import ndimage

from medexp.metrics.brats import lesion_wise_scores
from medexp.metrics.lesions import BRATS_2023_GLI, BRATS_2023_MEN, BRATS_2023_MET, BRATS_2024_GLI
from medexp.metrics.surface_elements import element_sizes

TISSUES = {"WT": (1, 2, 3), "TC": (1, 3), "NETC": (1,), "SNFH": (2,), "ET": (3,), "RC": (4,)}
CUBE = np.ones((3, 3, 3), dtype=bool)
ROUND = ndimage.generate_binary_structure(3, 2)
CROSS = ndimage.generate_binary_structure(3, 1)


def numbered(mask, steps):
    spread = ndimage.binary_dilation(mask, ROUND, iterations=steps)
    return ndimage.label(spread, CUBE)[0] * mask


def steps_for(region):
    return 5 if region in ("SFNH", "NETC", "RC") else 3  # the slip in the name is theirs


def touching(first, second):
    pairs = set()
    for a in np.unique(first[first > 0]):
        reach = ndimage.binary_dilation(first == a, ROUND)
        pairs |= {(int(a), int(b)) for b in np.unique(second[reach & (second > 0)])}
    return pairs


def relabelled(numbers, pairs):
    if len(pairs) <= 1:
        return numbers
    fresh, result, done = {}, numbers.copy(), set()
    for _, other in sorted(pairs):
        if other not in fresh:
            fresh[other] = numbers.max() + 1 + len(fresh)
    for own, other in sorted(pairs):
        if own not in done:
            result[numbers == own] = fresh[other]
            done.add(own)
    return result


def reordered(numbers):
    result = np.zeros_like(numbers)
    for rank, number in enumerate(np.unique(numbers[numbers > 0]), start=1):
        result[numbers == number] = rank
    return result


def prepared_2024(labels, is_prediction):
    maps = {}
    for region, values in TISSUES.items():
        numbers = numbered(np.isin(labels, values), steps_for(region))
        if is_prediction:
            for number in range(1, numbers.max() + 1):
                if (numbers == number).sum() <= (10 if region == "ET" else 20):
                    numbers[numbers == number] = 0
        maps[region] = numbers
    combined = dict(maps)
    for region, others in [
        ("NETC", ["ET", "RC"]),
        ("ET", ["NETC", "RC"]),
        ("RC", ["ET", "NETC"]),
        ("SNFH", ["ET", "RC", "NETC"]),
    ]:
        numbers = maps[region]
        for other in others:
            numbers = relabelled(numbers, touching(numbers, maps[other]))
        combined[region] = reordered(numbers)
    return combined


def surfels(numbers, table):
    padded = np.pad(numbers, 1)
    codes = np.zeros(np.array(numbers.shape) + 1, dtype=np.int64)
    for bit, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
        part = padded[i : i + codes.shape[0], j : j + codes.shape[1], k : k + codes.shape[2]] % 256
        codes += part * 2 ** (7 - bit)
    codes %= 256
    return (codes != 0) & (codes != 255), table[codes]


def directed_95(surface, sizes, other, spacing):
    if not surface.any():
        return np.inf
    if not other.any():
        return np.inf
    away = ndimage.distance_transform_edt(~other, sampling=spacing)
    rows = sorted(zip(away[surface], sizes[surface], strict=True))
    distances, areas = np.array(rows).T
    share = np.cumsum(areas) / np.sum(areas)
    return distances[min(np.searchsorted(share, 0.95), len(rows) - 1)]


def hd95(first, second, spacing):
    table = element_sizes(spacing)
    (a, a_sizes), (b, b_sizes) = surfels(first, table), surfels(second, table)
    return max(directed_95(a, a_sizes, b, spacing), directed_95(b, b_sizes, a, spacing))


def nsd(first, second, tolerance, spacing):
    if not first.any() or not second.any():
        return float(not first.any() and not second.any())
    edges = [mask & ~ndimage.binary_erosion(mask, CROSS) for mask in (first, second)]
    away = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    shares = [np.mean(away[1][edges[0]] <= tolerance), np.mean(away[0][edges[1]] <= tolerance)]
    return sum(shares) / (2 + 1e-8)


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def scored(region, p, g, spacing, steps, threshold, penalty, tolerances, legacy_on_numbers):
    voxel = spacing[0] * spacing[1] * spacing[2]
    rows, used = [], set()
    for number in range(1, g.max() + 1):
        lesion = g == number
        partners = set(np.unique(p[ndimage.binary_dilation(lesion, ROUND, iterations=steps)])) - {0}
        used |= partners
        union = np.isin(p, list(partners))
        rows.append(
            (
                bool(partners),
                lesion.sum() * voxel,
                dice(union, lesion),
                min(hd95(union.astype(int), lesion.astype(int), spacing), np.inf),
                *[nsd(union, lesion, tolerance, spacing) for tolerance in tolerances],
            )
        )
    num_fp = len(set(np.unique(p)) - {0} - used)
    counted = [[penalty if value == np.inf else value for value in row] for row in rows if row[1] > threshold]
    total = len(counted) + num_fp
    empty = not p.any() and not g.any()
    whole = (p, g) if legacy_on_numbers else ((p > 0).astype(int), (g > 0).astype(int))
    legacy_hd95 = 0.0 if empty else hd95(*whole, spacing)
    record = {
        "Labels": region,
        "Num_TP": sum(row[0] for row in counted),
        "Num_FP": num_fp,
        "Num_FN": sum(not row[0] for row in counted),
        "Legacy_Dice": 1.0 if empty else dice(p > 0, g > 0),
        "Legacy_HD95": penalty if legacy_hd95 == np.inf else legacy_hd95,
        "GT_Complete_Volume": (g > 0).sum() * voxel,
        "LesionWise_Score_Dice": sum(row[2] for row in counted) / total if total else 1.0,
        "LesionWise_Score_HD95": (sum(row[3] for row in counted) + penalty * num_fp) / total if total else 0.0,
    }
    for index, tolerance in enumerate(tolerances):
        record[f"Legacy NSD @ {tolerance}"] = nsd(p > 0, g > 0, tolerance, spacing)
        record[f"LesionWise_Score_NSD @ {tolerance}"] = sum(row[4 + index] for row in counted) / total if total else 1.0
    return record


def official_2024(prediction, reference, spacing):
    predicted, referred = prepared_2024(prediction, is_prediction=True), prepared_2024(reference, is_prediction=False)
    return [
        scored(
            region,
            predicted[region],
            referred[region],
            spacing,
            steps_for(region),
            10 if region == "ET" else 20,
            337,
            (0.5, 1.0),
            legacy_on_numbers=True,
        )
        for region in TISSUES
    ]


def official_2023(prediction, reference, spacing, steps, threshold):
    records = []
    for region in ("WT", "TC", "ET"):
        p, g = np.isin(prediction, TISSUES[region]), np.isin(reference, TISSUES[region])
        predicted = ndimage.label(p, CUBE)[0]
        records.append(
            scored(region, predicted, numbered(g, steps), spacing, steps, threshold, 374, (), legacy_on_numbers=False)
        )
    return records


def noise(rng, shape, width):
    field = ndimage.gaussian_filter(rng.standard_normal(shape), width, mode="constant")
    return field / field.std()


def random_labels(rng, shape):
    """Blobs of mixed tissue, shells, boxes, single voxels, one tissue everywhere, or nothing."""
    labels = np.zeros(shape, dtype=np.uint8)
    kind = rng.integers(0, 12)
    if kind < 4:
        fields = np.stack([noise(rng, shape, rng.uniform(0.7, 1.6)) for _ in range(4)])
        inside = fields.max(axis=0) > rng.uniform(1.0, 2.2)
        labels[inside] = (fields.argmax(axis=0) + 1)[inside]
    elif kind < 7:
        field = noise(rng, shape, rng.uniform(0.8, 2.0))
        for threshold, value in zip(np.sort(rng.uniform(0.5, 2.5, 3)), rng.permutation([1, 2, 3, 4]), strict=False):
            labels[field > threshold] = value
    elif kind < 10:
        for _ in range(rng.integers(1, 10)):
            corner, size = [rng.integers(0, n) for n in shape], rng.integers(1, 6, 3)
            labels[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = rng.integers(0, 5)
    elif kind == 10:
        inside = rng.random(shape) < rng.uniform(0.002, 0.05)
        labels[inside] = rng.integers(1, 5, shape)[inside]
    elif rng.random() < 0.3:
        labels[...] = rng.integers(1, 5)
    return labels


def random_pair(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(5, 22, 3))
    reference = random_labels(rng, shape)
    change = rng.integers(0, 4)
    if change == 0:
        prediction = random_labels(rng, shape)
    elif change == 1:
        prediction = np.roll(reference, rng.integers(-1, 3, 3), (0, 1, 2))
    elif change == 2:
        prediction = ndimage.median_filter(reference, 3)
    else:
        prediction = np.where(rng.random(shape) < 0.15, rng.integers(0, 5, shape), reference).astype(np.uint8)
    spacing = (1.0, 1.0, 1.0) if seed % 2 else tuple(float(size) for size in rng.choice([0.5, 1.0, 1.25, 2.0, 4.0], 3))
    return prediction, reference, spacing


def assert_same(scores, records):
    for record in records:
        own = scores[record["Labels"]].record()
        for name, value in record.items():
            if name != "Labels":
                assert own[name] == pytest.approx(value, abs=1e-6), (record["Labels"], name)


@pytest.mark.parametrize("first", range(0, 240, 40))
def test_random_pairs_score_like_the_2024_program(first):
    for seed in range(first, first + 40):
        prediction, reference, spacing = random_pair(seed)
        assert_same(
            lesion_wise_scores(prediction, reference, spacing, BRATS_2024_GLI),
            official_2024(prediction, reference, spacing),
        )


@pytest.mark.parametrize(
    ("protocol", "steps", "threshold"), [(BRATS_2023_GLI, 3, 50), (BRATS_2023_MEN, 1, 50), (BRATS_2023_MET, 1, 2)]
)
def test_random_pairs_score_like_the_2023_program(protocol, steps, threshold):
    for seed in range(300, 320):
        prediction, reference, spacing = random_pair(seed)
        assert_same(
            lesion_wise_scores(prediction, reference, spacing, protocol),
            official_2023(prediction, reference, spacing, steps, threshold),
        )


def test_random_pairs_contain_what_the_quirks_need():
    """Joined tissues, several lesions and dropped predictions all occur, or the tests above would show nothing."""
    joined = several = dropped = 0
    for seed in range(240):
        prediction, reference, _ = random_pair(seed)
        combined = prepared_2024(reference, is_prediction=False)
        for region, values in TISSUES.items():
            before = numbered(np.isin(reference, values), steps_for(region)).max()
            joined += combined[region].max() < before
            several += combined[region].max() > 1
            small = numbered(np.isin(prediction, values), steps_for(region))
            dropped += (np.bincount(small.ravel())[1:] <= 10).any()
    assert joined >= 5
    assert several >= 50
    assert dropped >= 50
