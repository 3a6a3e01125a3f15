"""Binding the arguments of a call in Python: what `templates/frame/` does for a module, for the NumPy backend.

The steps and the words of the refusals are the same: constants, arrays and their dtypes, sizes from shapes, indices.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from jaccomp.binding import Extent, Name, ProgramForm, Signature, TensorForm, names, text, value

Array = NDArray[Any]
Place = tuple[str, str]  # side, name of a tensor
MARKS: Mapping[str, str] = {"primal": "", "cotangent": "ct_", "tangent": "t_"}
OPTIONS = ("out", "threads", "wrt", "of", "form")
LARGEST = 1 << 31  # integer scalars and sizes by keyword stay below it
_FLOATS: Mapping[Any, str] = {np.dtype(np.float32): "float32", np.dtype(np.float64): "float64"}


@dataclass(frozen=True, slots=True)
class State:
    """What a call knows once its arguments are bound, and what a residual remembers of it."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    leads: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scalars: Mapping[str, float | int] = field(default_factory=dict)
    wrt: tuple[str, ...] = ()
    real: str | None = None


class Call:
    """The arguments of one call, bound step by step; every refusal begins with the call, `rmsnorm(x, g): `."""

    def __init__(self, signature: Signature, state: State | None = None) -> None:
        remembered = state or State()
        self.signature = signature
        self.sizes = dict(remembered.sizes)
        self.leads = dict(remembered.leads)
        self.scalars = dict(remembered.scalars)
        self.real = remembered.real
        self.forms = {one.name: one for one in signature.tensors}
        self.arrays: dict[Place, Array] = {}
        self.shapes: dict[Place, tuple[int, ...]] = {}
        self._voter: Place | None = None
        self._origin: dict[str, tuple[Place, int] | str] = dict.fromkeys(self.sizes, "in the forward call")

    def state(self, wrt: Iterable[str] = ()) -> State:
        return State(dict(self.sizes), dict(self.leads), dict(self.scalars), tuple(wrt), self.real)

    def fail(self, error: type[Exception], message: str) -> NoReturn:
        raise error(f"{self.signature.call}: {message}")

    # -- constants

    def parse(
        self, positional: Sequence[str], options: Sequence[str], args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Values by name. Raises `TypeError` for an argument that there is not, or that comes twice."""
        if len(args) > len(positional):
            self.fail(
                TypeError,
                f"{len(args)} arguments by position, but at most {len(positional)}: the others are keywords.",
            )
        values = dict(zip(positional, args, strict=False))
        known = {*positional, *(s.name for s in self.signature.scalars), *self.signature.sizes, *options}
        for name, given in keywords.items():
            if name not in known:
                self.fail(TypeError, f"there is no argument {name!r}.")
            if name in values:
                self.fail(TypeError, f"{name} is given twice.")
            values[name] = given
        return values

    def constants(self, values: Mapping[str, Any], needed: Iterable[str], defaults: bool) -> None:
        """Scalars and sizes by keyword; those in `needed` must have a value, a default only where `defaults`."""
        required = set(needed)
        for one in self.signature.scalars:
            if one.name not in values:
                if one.name in self.scalars:
                    continue
                if one.default is not None and defaults:
                    self.scalars[one.name] = one.default
                elif one.name in required:
                    self.fail(TypeError, f"the scalar {one.name} is missing. Pass it by keyword: {one.name}=...")
                continue
            given = values[one.name]
            number = self._whole(one.name, given, 1 - LARGEST) if one.integer else self._number(one.name, given)
            before = self.scalars.setdefault(one.name, number)
            if not (before == number or (before != before and number != number)):
                self.fail(ValueError, f"{one.name} is {given!r}, but the forward call had another value.")
        for name in self.signature.sizes:
            if name in values:
                self._size(name, values[name])

    def _size(self, name: str, given: Any) -> None:
        if name in self.signature.any_sizes:
            axes = given if isinstance(given, tuple) else (given,)
            self.leads[name] = tuple(self._whole(name, one, 0) for one in axes)
            size = prod(self.leads[name])
        else:
            size = self._whole(name, given, 0)
        if self.sizes.get(name, size) != size:
            self.fail(ValueError, f"{name} is {given!r}, but the forward call had {self.sizes[name]}.")
        self.sizes[name] = size
        self._origin[name] = "by keyword"

    def _whole(self, name: str, given: Any, low: int) -> int:
        try:
            if isinstance(given, bool):
                raise TypeError
            whole = operator.index(given)
        except TypeError:
            self.fail(TypeError, f"{name} is {given!r} ({type(given).__name__}), but it must be an int.")
        if not low <= whole < LARGEST:
            self.fail(ValueError, f"{name} is {given!r}, but it must be an int from {low} to {LARGEST - 1}.")
        return whole

    def _number(self, name: str, given: Any) -> float:
        try:
            if isinstance(given, str | complex):
                raise TypeError
            return float(given)
        except (TypeError, ValueError):
            self.fail(TypeError, f"{name} is {given!r} ({type(given).__name__}), but it must be a real number.")

    def threads(self, given: Any) -> None:
        """`threads` is checked as everywhere; NumPy decides for itself."""
        if given is None:
            return
        if isinstance(given, bool) or not hasattr(given, "__index__"):
            self.fail(TypeError, f"threads is {given!r} ({type(given).__name__}), but it must be an int >= 1, or None.")
        if operator.index(given) < 1:
            self.fail(ValueError, f"threads is {given!r}, but it must be an int >= 1, or None.")

    # -- arrays

    def take(self, side: str, name: str, given: Any) -> None:
        """Accept `given` for a tensor: an array of a dtype that serves it."""
        form, label = self.forms[name], MARKS[side] + name
        weak = type(given) in (int, float)
        listed = weak or isinstance(given, list | tuple)
        try:
            array = np.asarray(given)
        except Exception as error:
            self.fail(TypeError, f"{label} cannot be made an array: {error}")
        if isinstance(given, np.ndarray) and hasattr(given, "mask"):
            self.fail(
                TypeError,
                f"{label} is a masked array, and its mask would be ignored. Fill it: {label}.filled(0).",
            )
        kind = array.dtype
        if form.integer:
            if not (kind.kind in "iu" and np.can_cast(kind, np.int64)) and not (listed and array.size == 0):
                self.fail(
                    TypeError,
                    f"{label} is {kind}, but it must be an integer array, int64 or int32. "
                    f"Convert it: {label}.astype(np.int64).",
                )
            real = None
        else:
            real = _FLOATS.get(kind.newbyteorder("="), "float64" if listed and kind.kind in "iu" else None)
            if real is None:
                self.fail(
                    TypeError,
                    f"{label} is {kind}, but it must be float32 or float64. Convert it: {label}.astype(np.float32).",
                )
        if real is not None and not weak:
            self._vote((side, name), label, real)
        self.arrays[side, name] = array
        self.shapes[side, name] = array.shape

    def _vote(self, place: Place, label: str, real: str) -> None:
        if self.real is None:
            self.real, self._voter = real, place
        elif self.real != real and self._voter is None:
            self.fail(
                TypeError, f"{label} is {real} but the forward call was {self.real}. "
                f"Convert it: {label}.astype(np.{self.real})."
            )  # fmt: skip
        elif self.real != real and self._voter is not None:
            other = MARKS[self._voter[0]] + self._voter[1]
            self.fail(
                TypeError, f"{other} is {self.real} but {label} is {real}. "
                f"Convert one: {label}.astype(np.{self.real}), or {other}.astype(np.{real})."
            )  # fmt: skip

    def dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(np.int64 if self.forms[name].integer else self.real or "float64")

    def settle(self) -> None:
        """Every array in native order and of the dtype that is computed in."""
        for (side, name), array in self.arrays.items():
            self.arrays[side, name] = np.asarray(array, dtype=self.dtype(name))

    # -- sizes

    def bind(self, complete: bool = True) -> None:
        """Sizes from the shapes that are present; then every extent >= 0. Raises `ValueError`, and `TypeError`."""
        for place in self.places():
            self._bind_bare(place)
        while self._solve():
            pass
        for place in self.places():
            self._check_extents(place)
        unknown = [name for name in self.signature.sizes if name not in self.sizes]
        if complete and unknown:
            self.fail(TypeError, f"no argument determines the size {unknown[0]}. Pass it by keyword: {unknown[0]}=...")
        for extent, where in self._extents().items():
            self._check_positive(extent, where)

    def places(self) -> list[Place]:
        """What is present, in the order of the tables: side by side, tensor by tensor."""
        return [(side, name) for side in MARKS for name in self.forms if (side, name) in self.shapes]

    def _bind_bare(self, place: Place) -> None:
        form, shape = self.forms[place[1]], self.shapes[place]
        extra = len(shape) - len(form.shape)
        if extra != 0 if form.any_axis is None else extra < -1:
            self._wrong_rank(place)
        for axis, extent in enumerate(form.shape):
            if not isinstance(extent, Name) or extent.name not in self.signature.sizes:
                continue
            size, dims = extent.name, self._dims(place, axis)
            lead = axis == form.any_axis
            if size not in self.sizes:
                self.sizes[size] = prod(dims)
                self._origin[size] = place, axis
                if lead:
                    self.leads[size] = dims
            elif self.sizes[size] != prod(dims) or (lead and self.leads[size] != dims):
                self.fail(ValueError, f"{size} is {self._bound(size)}, but {self._seen(place, axis)}.")

    def _dims(self, place: Place, axis: int) -> tuple[int, ...]:
        """The axes of an argument that a declared axis stands for."""
        form, shape = self.forms[place[1]], self.shapes[place]
        extra = len(shape) - len(form.shape)
        if form.any_axis is None or axis < form.any_axis:
            return shape[axis : axis + 1]
        if axis == form.any_axis:
            return shape[axis : axis + extra + 1]
        return shape[axis + extra : axis + extra + 1]

    def _wrong_rank(self, place: Place) -> NoReturn:
        form, shape = self.forms[place[1]], self.shapes[place]
        rank = len(form.shape) - (form.any_axis is not None)
        self.fail(
            ValueError,
            f"{MARKS[place[0]]}{form.name} is {shape}, {len(shape)} {_axes(len(shape))}, but its shape is "
            f"{form.spelled()}, {'' if form.any_axis is None else 'at least '}{rank} {_axes(rank)}.",
        )

    def _seen(self, place: Place, axis: int) -> str:
        """`64 in x (8, 64), axis 1`."""
        form, shape, dims = self.forms[place[1]], self.shapes[place], self._dims(place, axis)
        first = axis + (len(shape) - len(form.shape) if form.any_axis is not None and axis > form.any_axis else 0)
        where = f"in {MARKS[place[0]]}{form.name} {shape}"
        if len(dims) == 1:
            return f"{dims[0]} {where}, axis {first}"
        return f"{dims} {where}, axes {first} to {first + len(dims) - 1}" if dims else f"() {where}"

    def _bound(self, size: str) -> str:
        origin = self._origin[size]
        if isinstance(origin, str):
            return f"{self.leads[size] if size in self.leads else self.sizes[size]} {origin}"
        return self._seen(*origin)

    def _because(self, extents: Iterable[Extent]) -> str:
        used = {name for extent in extents for name in names(extent)}
        said = [f"{name} is {self._bound(name)}" for name in self.signature.sizes if name in used]
        return f" ({'; '.join(said)})" if said else ""

    def _solve(self) -> bool:
        """One pass over axes whose extent is linear in one unknown size; whether any was solved."""
        solved = False
        for place in self.places():
            for axis, extent in enumerate(self.forms[place[1]].shape):
                for how in self.signature.solutions:
                    if how.extent != extent or how.size in self.sizes or not self._known(how.factor, how.rest):
                        continue
                    solved |= self._solve_for(place, axis, how.size, extent, how.factor, how.rest)
        return solved

    def _known(self, *extents: Extent) -> bool:
        return all(name in self.sizes or name in self.scalars for extent in extents for name in names(extent))

    def _values(self) -> dict[str, int]:
        return {**self.sizes, **{name: int(v) for name, v in self.scalars.items() if isinstance(v, int)}}

    def _solve_for(self, place: Place, axis: int, size: str, extent: Extent, factor: Extent, rest: Extent) -> bool:
        try:
            slope, offset = value(factor, self._values()), value(rest, self._values())
            found, remainder = divmod(self._dims(place, axis)[0] - offset, slope)
        except ZeroDivisionError:
            return False
        if remainder or found < 0:
            low = max(found, 0)
            self.fail(
                ValueError,
                f"{text(extent)} is {self._seen(place, axis)}, but no {size} >= 0 makes it so: "
                f"{size} = {low} gives {low * slope + offset}.",
            )
        self.sizes[size] = found
        self._origin[size] = place, axis
        if size in self.signature.any_sizes:
            self.leads[size] = (found,)
        return True

    def _check_extents(self, place: Place) -> None:
        for axis, extent in enumerate(self.forms[place[1]].shape):
            if (isinstance(extent, Name) and extent.name in self.signature.sizes) or not self._known(extent):
                continue
            try:
                expected = value(extent, self._values())
            except ZeroDivisionError:
                continue
            if expected != self._dims(place, axis)[0]:
                because = self._because([extent])
                self.fail(ValueError, f"{text(extent)} is {expected}{because}, but {self._seen(place, axis)}.")

    def _extents(self) -> dict[Extent, str]:
        """Extents that are expressions, of arguments and then of what kernels allocate, with where they stand."""
        found: dict[Extent, str] = {}
        for form in self.signature.tensors:
            for axis, extent in enumerate(form.shape):
                if not isinstance(extent, Name):
                    found.setdefault(extent, f"{form.name}, axis {axis}")
        for program in self.signature.programs.values():
            for extent, where in program.extents:
                found.setdefault(extent, where)
        return found

    def _check_positive(self, extent: Extent, where: str) -> None:
        if not self._known(extent):
            return
        try:
            found = value(extent, self._values())
        except ZeroDivisionError:
            because = self._because([extent])
            self.fail(ValueError, f"the extent of {where}, {text(extent)}, divides by zero{because}.")
        if found < 0:
            because = self._because([extent])
            self.fail(ValueError, f"the extent of {where}, {text(extent)}, would be {found}{because}.")

    def shape(self, form: TensorForm) -> tuple[int, ...]:
        """The shape of a tensor once sizes are bound, its leading axes restored."""
        dims: list[int] = []
        for axis, extent in enumerate(form.shape):
            if axis == form.any_axis and isinstance(extent, Name):
                dims.extend(self.leads[extent.name])
            else:
                dims.append(value(extent, self._values()))
        return tuple(dims)

    def flat(self, form: TensorForm) -> tuple[int, ...]:
        """The shape that programs compute in: one axis where the call has any number."""
        return tuple(value(extent, self._values()) for extent in form.shape)

    # -- indices

    def check_indices(self, program: ProgramForm) -> None:
        """Raises `IndexError` for an access at a corner of its box, or an id, outside its axis."""
        values = self._values()
        for corner in program.corners:
            if any(value(one, values) <= 0 for one in corner.ranges):
                continue
            low, high, extent = (value(one, values) for one in (corner.low, corner.high, corner.extent))
            if low < 0 or high >= extent:
                because = self._because([corner.low, corner.high, corner.extent])
                self.fail(
                    IndexError,
                    f"{corner.text} reads {low} to {high} of axis {corner.axis}, whose extent is {extent}{because}.",
                )
        for scan in program.scans:
            ids = self.arrays.get((scan.side, scan.name))
            extent = value(scan.extent, values)
            if ids is None or (scan.computed and extent <= 0):
                continue
            first, stop = -value(scan.low, values), extent - value(scan.high, values)
            wrong = np.argwhere((ids < first) | (ids >= stop))
            if len(wrong):
                at = tuple(map(int, wrong[0]))
                where = f"[{', '.join(map(str, at))}]" if at else ""
                self.fail(
                    IndexError,
                    f"{MARKS[scan.side]}{scan.name}{where} is {int(ids[at])}, but {scan.text} needs ids from {first} "
                    f"to {stop - 1}: axis {scan.axis} has extent {extent}.",
                )

    # -- wrt

    def wrt(self, given: Any) -> tuple[str, ...]:
        """The real inputs that `given` names: all of them for None."""
        real = [one.name for one in self.signature.inputs if not one.integer]
        if given is None:
            return tuple(real)
        if not isinstance(given, str | tuple | list):
            self.fail(TypeError, f"wrt is {given!r}, but it must be a name, a tuple of names or None.")
        for name in (given,) if isinstance(given, str) else given:
            if name not in real:
                self.fail(ValueError, f"wrt names {name!r}, but the real inputs are {', '.join(real)}.")
        chosen = {given} if isinstance(given, str) else set(given)
        return tuple(name for name in real if name in chosen)

    def narrow(self, given: Any, kept: Sequence[str]) -> tuple[str, ...]:
        """`wrt` of a backward call, which the forward call's must hold."""
        if given is None:
            return tuple(kept)
        chosen = self.wrt(given)
        for name in chosen:
            if name not in kept:
                self.fail(ValueError, f"wrt names '{name}', which the forward call left out of its wrt.")
        return chosen


def _axes(count: int) -> str:
    return "axis" if count == 1 else "axes"
