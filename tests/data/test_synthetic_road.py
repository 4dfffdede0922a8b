"""What the road scenes promise: the shares of what each sensor shows, tight boxes, one place in all frames."""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from scanfuse.data.boxes import iou
from scanfuse.data.synthetic._road import KINDS, SHARES, Frame, draw_scene, paint_frame, render
from scanfuse.data.synthetic._road_scene import Scene, Thing
from scanfuse.errors import UserError

CLASSES = ("person", "car", "bicycle")
SIX = ("person", "car", "bus", "motorcycle", "lamp", "truck")
SIZE = (96, 128)


def scene(number: int, *, night: bool | None = None, classes: tuple[str, ...] = CLASSES) -> Scene:
    return draw_scene(number, size=SIZE, seed=3, classes=classes, night=night)


def painted(one: Scene, frame: int = 0) -> Frame:
    return paint_frame(one, frame, classes=CLASSES)


def without(one: Scene, thing: Thing) -> Scene:
    return replace(one, things=tuple(other for other in one.things if other is not thing))


def instead(one: Scene, thing: Thing, other: Thing) -> Scene:
    return replace(one, things=tuple(other if each is thing else each for each in one.things))


def box_of(whole: Frame, rest: Frame, kind: str) -> tuple[slice, slice] | None:
    """Rows and columns of the one box that `rest` lacks."""
    new = [
        tuple(box.astype(int))
        for box, name in zip(whole.boxes.xyxy, whole.boxes.names, strict=True)
        if name == kind and not (rest.boxes.xyxy == box).all(axis=1).any()
    ]
    if len(new) != 1:
        return None
    left, top, right, bottom = new[0]
    return slice(top, bottom), slice(left, right)


def singles(numbers: range, causes: tuple[str, ...]) -> list[tuple[Scene, Thing]]:
    return [
        (one, thing)
        for one in map(scene, numbers)
        for thing in one.things
        if thing.kind in CLASSES and not thing.ridden and thing.cause in causes
    ]


# --- the law ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [CLASSES, SIX, ("person",)])
def test_each_sensor_shows_its_share(classes: tuple[str, ...]) -> None:
    things = [
        thing
        for number in range(160)
        for thing in draw_scene(number, size=SIZE, seed=0, classes=classes, night=None).things
        if thing.kind in classes
    ]
    counts = Counter(thing.shown for thing in things)
    for shown, share in SHARES.items():
        # Placing loses some; the deviation of a share of 700 things is 0.018.
        assert abs(counts[shown] / len(things) - share) < 0.055
    assert sum(SHARES.values()) == pytest.approx(1) and 1 - SHARES["rgb"] == 1 - SHARES["ir"] == pytest.approx(0.7)
    assert 2.5 < len(things) / 160 < 6.5 and set(classes) == {thing.kind for thing in things}


def test_cold_and_dark_things_leave_no_trace_in_the_other_sensor() -> None:
    """Against the same picture without the thing: its noise is the same, so all difference is the thing's."""
    seen: Counter[tuple[str, bool]] = Counter()
    for one, thing in singles(range(8), ("", "dark")) + singles(range(30), ("cold",)):
        whole, rest = painted(one), painted(without(one, thing))
        place = box_of(whole, rest, thing.kind)
        if place is None:
            continue
        rgb, ir = (
            np.abs(a[place].astype(float) - b[place].astype(float)).mean()
            for a, b in ((whole.rgb, rest.rgb), (whole.ir, rest.ir))
        )
        for sensor, difference in (("rgb", rgb), ("ir", ir)):
            hidden = thing.shown not in ("both", sensor)
            # Of 255 levels; the noise has 3 to 10.
            assert difference < 3 if hidden else difference > 5, (one.number, thing, sensor, difference)
            seen[sensor, hidden] += 1
    assert min(seen.values()) >= 6 and len(seen) == 4


def test_mist_hides_colour_and_not_heat() -> None:
    compared = 0
    for one, thing in singles(range(40), ("mist",)):
        bright, dark = (painted(instead(one, thing, replace(thing, lit=lit))) for lit in (1.0, 0.2))
        place = box_of(bright, painted(without(one, thing)), thing.kind)
        if place is None:
            continue
        clear = [painted(instead(one, thing, replace(thing, cause="", lit=lit))) for lit in (1.0, 0.2)]
        hidden, open_ = (np.abs(a.rgb[place].astype(float) - b.rgb[place]).mean() for a, b in ((bright, dark), clear))
        assert hidden < 0.08 * open_
        np.testing.assert_array_equal(clear[0].ir[place], bright.ir[place])
        compared += 1
    assert compared > 6


def test_glass_hides_heat_and_not_colour() -> None:
    compared = 0
    for one, thing in singles(range(30), ("glass",)):
        rest = painted(without(one, thing))
        behind, free = painted(one), painted(instead(one, thing, replace(thing, cause="", shown="both")))
        place = box_of(behind, rest, thing.kind)
        if place is None or place[0].stop - place[0].start < 12:
            continue
        # The pane is even (but for noise and what stands before it), the person is not.
        assert _spread(behind.ir[place]) < 0.5 * _spread(free.ir[place])
        a, b = behind.rgb[place].astype(float), rest.rgb[place].astype(float)
        assert np.abs(a - b).mean() > 5
        compared += 1
    assert compared > 6


def _spread(values: np.ndarray) -> float:
    low, high = np.percentile(values, [15, 85])
    return float(high - low)


# --- the boxes ----------------------------------------------------------------------------------------------------


def test_boxes_are_tight_around_what_infrared_shows() -> None:
    compared = 0
    for one, thing in singles(range(30), ("",)):
        nearer = [other for other in one.things if other.z < thing.z and other.kind != "decoy"]
        alone = replace(one, things=tuple(other for other in one.things if other not in nearer))
        whole, rest = painted(alone), painted(without(alone, thing))
        place = box_of(whole, rest, thing.kind)
        if place is None:
            continue
        difference = np.abs(whole.ir.astype(float) - rest.ir)
        found = ndimage.find_objects((difference > 0.25 * np.percentile(difference[place], 90)).astype(int))[0]
        apart = [(found[axis].start - place[axis].start, found[axis].stop - place[axis].stop) for axis in (0, 1)]
        if thing.kind == "car":
            apart[0] = (0, apart[0][1])  # its windows are as cool as the street behind them
        assert np.abs(apart).max() <= 2
        compared += 1
    assert compared > 25


def test_boxes_lie_in_the_picture_and_are_large_enough() -> None:
    for number in range(25):
        for frame in render(number, frames=2, size=SIZE, seed=1, classes=SIX):
            boxes = frame.boxes.xyxy
            assert (boxes == boxes.round()).all() and (boxes >= 0).all()
            assert (boxes[:, [0, 2]] <= 128).all() and (boxes[:, [1, 3]] <= 96).all()
            assert len(frame.shown) == len(frame.cause) == len(boxes)
            assert all(
                (shown == "both") == (cause == "") for shown, cause in zip(frame.shown, frame.cause, strict=True)
            )


# --- day and night ------------------------------------------------------------------------------------------------


def test_night_is_dark_and_people_are_warm_in_it() -> None:
    levels: dict[bool, list[float]] = {True: [], False: []}
    contrast: dict[bool, list[float]] = {True: [], False: []}
    for number in range(24):
        for night in (True, False):
            frame = render(number, size=SIZE, seed=5, night=night)[0]
            assert frame.night == night
            levels[night].append(float(frame.rgb.mean()))
            for box, name, shown in zip(frame.boxes.xyxy.astype(int), frame.boxes.names, frame.shown, strict=True):
                if name == "person" and shown != "rgb":
                    inside = np.percentile(frame.ir[box[1] : box[3], box[0] : box[2]], 80)
                    contrast[night].append(float(inside - np.median(frame.ir[48:])))
    assert np.percentile(levels[True], 90) < 70 < np.percentile(levels[False], 10)
    assert np.median(levels[True]) < 0.45 * np.median(levels[False])
    assert np.median(contrast[True]) > 1.5 * np.median(contrast[False]) > 30
    assert min(contrast[True]) > 20


def test_half_of_the_scenes_are_at_night() -> None:
    assert 70 < sum(scene(number).street.night for number in range(200)) < 130


# --- sequences ----------------------------------------------------------------------------------------------------


def test_frames_show_one_place_with_things_that_move() -> None:
    moved = 0
    for number in range(8):
        first, second, third = render(number, frames=3, size=SIZE, seed=2)
        stranger = render(number + 100, size=SIZE, seed=2, night=first.night)[0]
        near, far = (np.corrcoef(first.ir.ravel(), other.ir.ravel())[0, 1] for other in (second, stranger))
        assert near > 0.8 > far or near > far + 0.1
        assert not (first.rgb == second.rgb).all()  # at least the noise
        if len(first.boxes) and len(third.boxes):
            overlap = iou(first.boxes.xyxy, third.boxes.xyxy).max(axis=1)
            moved += int((overlap < 0.8).any())
    assert moved >= 4


def test_a_frame_does_not_depend_on_how_many_there_are() -> None:
    one, three = render(4, frames=1, size=SIZE)[0], render(4, frames=3, size=SIZE)[0]
    assert (one.rgb == three.rgb).all() and (one.boxes.xyxy == three.boxes.xyxy).all()


# --- options ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_scene() -> None:
    a, b = (render(7, size=SIZE, seed=9)[0] for _ in range(2))
    assert (a.rgb == b.rgb).all() and (a.ir == b.ir).all() and (a.boxes.xyxy == b.boxes.xyxy).all()
    for other in (render(8, size=SIZE, seed=9)[0], render(7, size=SIZE, seed=10)[0]):
        assert np.abs(a.rgb.astype(float) - other.rgb).mean() > 5


TRIED = [(down, right) for down in range(-6, 7) for right in range(-6, 7)]


def moved(ir: np.ndarray, down: int, right: int) -> np.ndarray:
    """The middle of a picture that was moved by whole pixels."""
    soft = ndimage.gaussian_filter(ir.astype(np.float32), 0.7)
    return soft[8 - down : ir.shape[0] - 8 - down, 8 - right : ir.shape[1] - 8 - right]


def test_misaligned_pictures_are_shifted_as_they_say() -> None:
    shifts = []
    for number in range(6):
        plain = render(number, size=(192, 256))[0]
        frame = render(number, size=(192, 256), misalign=5.0)[0]
        assert plain.shift == (0.0, 0.0) and len(frame.boxes) == len(plain.boxes)
        assert np.abs(frame.boxes.xyxy - plain.boxes.xyxy).max() <= 1
        apart = [np.square(moved(plain.ir, down, right) - moved(frame.ir, 0, 0)).mean() for down, right in TRIED]
        np.testing.assert_allclose(TRIED[int(np.argmin(apart))], frame.shift[::-1], atol=0.8)
        shifts.append(frame.shift)
    assert np.ptp(shifts, axis=0).min() > 2 and np.abs(shifts).max() <= 5


def test_sixteen_bits_are_counts_of_the_same_heat() -> None:
    fitted, counts = (render(3, size=SIZE, bits=bits)[0].ir for bits in (8, 16))
    assert counts.dtype == np.uint16 and fitted.dtype == np.uint8
    assert 6500 < counts.min() < counts.max() < 16384 and np.ptp(counts) > 700
    assert np.corrcoef(fitted.ravel(), counts.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (160, 96), (240, 320), (1024, 1280)])
def test_any_size(size: tuple[int, int]) -> None:
    frames = [render(number, size=size, classes=KINDS)[0] for number in range(2 if max(size) > 1000 else 6)]
    assert all(frame.rgb.shape == (*size, 3) and frame.ir.shape == size for frame in frames)
    assert sum(len(frame.boxes) for frame in frames) > len(frames)


def test_a_small_scene_takes_milliseconds() -> None:
    render(0)
    start = time.process_time()
    for number in range(10):
        render(number, size=(128, 160))
    assert (time.process_time() - start) / 10 < 0.15  # 0.04 s measured


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": (40, 64)}, "sides of 48 to 1280 pixels"),
        ({"frames": 0}, "one frame or more"),
        ({"bits": 12}, "8 or 16 bits"),
        ({"misalign": 40.0}, "a misalignment of 0 to 16 pixels"),
        ({"classes": ("person", "cat")}, "Name different classes of person, car"),
        ({"classes": ()}, "got none"),
        ({"classes": ("car", "car")}, "got car, car"),
    ],
)
def test_impossible_options_are_refused(options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        render(0, **options)
