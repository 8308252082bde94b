"""A .pt2 archive, read by ourselves and written again with nothing but what was checked.

Torch unpickles whatever an archive says is pickled, loads its shared libraries, and finds members
by other rules than Python's `zipfile`. It therefore never sees the file, but an archive of our own
making: plain tensors as raw bytes, their descriptions, and the graph.
"""

from __future__ import annotations

import io
import math
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta
from torch.export.pt2_archive import PT2ArchiveWriter

from ...decode import Limits, Source
from ...errors import BitencError, UnsupportedError
from .schema import Device, Length, Part, Program
from .schema import Path as Fqn

ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2}
GRAPH = Limits(size=1 << 28, items=1 << 24, depth=128)
MEMBERS = 1 << 17
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
PROGRAM, SAMPLE_INPUTS = "models/model.json", "data/sample_inputs/model.pt"
FORMAT = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": sys.byteorder.encode()}
# Members whose content never reaches torch: it is either not needed or pickled.
LEFT_OUT = re.compile(rf"\.data/\w+|{re.escape(SAMPLE_INPUTS)}|extra/.*", re.DOTALL)


Kind = TypeVar("Kind")


class Extent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A size, stride or offset of a stored tensor: a number."""

    as_int: Length


class StoredMeta(Part, frozen=True):
    """Type and layout of a stored tensor."""

    dtype: Literal[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    sizes: Annotated[list[Extent], Meta(max_length=32)]
    requires_grad: bool
    device: Device
    strides: Annotated[list[Extent], Meta(max_length=32)]
    storage_offset: Extent
    layout: Literal[7]

    def __post_init__(self):
        if len(self.sizes) != len(self.strides):
            raise ValueError("has not as many strides as sizes")

    @property
    def nbytes(self) -> int:
        """Bytes of the storage that the tensor reaches."""
        sizes, strides = ([each.as_int for each in x] for x in (self.sizes, self.strides))
        if math.prod(sizes) == 0:
            return 0
        last = sum((size - 1) * stride for size, stride in zip(sizes, strides))
        return (self.storage_offset.as_int + last + 1) * ITEM_BYTES[self.dtype]


class Payload(Part, frozen=True):
    """A tensor in a member of its own or of several; it isn't pickled."""

    path_name: Annotated[str, Meta(pattern=r"^(weight|tensor)_[0-9]{1,9}\Z")]
    is_param: bool
    use_pickle: Literal[False]
    tensor_meta: StoredMeta


class PayloadConfig(Part, frozen=True):
    """``model_weights_config.json`` or ``model_constants_config.json``."""

    config: dict[Fqn, Payload]


CONFIGS = {f"{WEIGHTS}model_weights_config.json": WEIGHTS,
           f"{CONSTANTS}model_constants_config.json": CONSTANTS}  # fmt: skip
PREFIXES = {WEIGHTS: "weight_", CONSTANTS: "tensor_"}


def rebuilt(path: Path, source: Source) -> tuple[io.BytesIO, Program]:
    """Return an archive of what was checked, and the program in it.

    Raises
    ------
    UnsupportedError
        If the file isn't an archive of plain tensors, with the member that is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return Rebuilder(path, archive, source).rebuilt()
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError,
            RuntimeError, EOFError, KeyError) as error:  # fmt: skip
        if isinstance(error, UnsupportedError):
            raise
        raise source.fault(f"isn't an exported program ({error})") from None


class Rebuilder:
    """Checks the members of an archive and copies them.

    Parameters
    ----------
    path : Path
    archive : zipfile.ZipFile
    source : Source
        How faults are raised.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, source: Source):
        self.archive, self.source = archive, source
        self.members = self._members(path.stat().st_size)

    def rebuilt(self) -> tuple[io.BytesIO, Program]:
        """The archive and the program."""
        for name, content in FORMAT.items():
            self._check_format(name, content)
        result, program = io.BytesIO(), self._document(PROGRAM, Program)
        with PT2ArchiveWriter(result) as made:
            made.write_bytes(PROGRAM, msgspec.json.encode(program))
            made.write_bytes(SAMPLE_INPUTS, b"")
            for name, folder in CONFIGS.items():
                config = self._document(name, PayloadConfig)
                made.write_bytes(name, msgspec.json.encode(config))
                for member in self._stored(name, folder, config):
                    made.write_bytes(member, self._read(member))
        result.seek(0)
        return result, program

    def _members(self, file_bytes: int) -> dict[str, zipfile.ZipInfo]:
        """Members by their names below the one folder of the archive."""
        infos = self.archive.infolist()
        if len(infos) > MEMBERS:
            raise self.source.fault(f"has more than {MEMBERS:,} members")
        members: dict[str, zipfile.ZipInfo] = {}
        root = infos[0].orig_filename.split("/")[0] if infos else ""
        for info in infos:
            name = info.orig_filename.removeprefix(f"{root}/")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise self._refused(info, "is compressed or encrypted")
            if name == info.orig_filename or not _is_known(name):
                raise self._refused(info, "is nothing that a model of plain tensors needs")
            if name in members:
                raise self._refused(info, "is there twice")
            members[name] = info
        if sum(info.file_size for info in infos) > file_bytes:
            raise self.source.fault("isn't an exported program (its members overlap)")
        return members

    def _refused(self, info: zipfile.ZipInfo, why: str) -> BitencError:
        return self.source.fault(f"its member {info.orig_filename!r} {why}; it may run code")

    def _read(self, name: str) -> bytes:
        if name not in self.members:
            raise self.source.fault(f"isn't an exported program (it has no {name})")
        return self.archive.read(self.members[name])

    def _check_format(self, name: str, content: bytes) -> None:
        found = self._read(name)
        if found != content:
            raise self.source.fault(f"its {name} is {found[:20]!r}, and {content!r} is read")

    def _document(self, name: str, kind: type[Kind]) -> Kind:
        where = f"{self.source.where}, {name}"
        return replace(self.source, where=where).json(self._read(name), kind)

    def _stored(self, config_name: str, folder: str, config: PayloadConfig) -> list[str]:
        """Members with the tensors of a configuration, each large enough for them."""
        types: dict[str, int] = {}
        for name, payload in config.config.items():
            member, meta = folder + payload.path_name, payload.tensor_meta
            place = f"{config_name}, {name!r}"
            if not payload.path_name.startswith(PREFIXES[folder]) or member not in self.members:
                raise self.source.fault(f"has no member {member!r} of its own", place)
            stored = self.members[member].file_size
            item = ITEM_BYTES[meta.dtype]
            if meta.nbytes > stored or stored % item or (stored == 0) != (meta.nbytes == 0):
                raise self.source.fault(f"has {stored} bytes, not {meta.nbytes}", place)
            if types.setdefault(member, meta.dtype) != meta.dtype:
                raise self.source.fault("shares its bytes with a tensor of another type", place)
        return list(types)


def _is_known(name: str) -> bool:
    """Whether a member is of a kind that `torch.export.save` writes for plain tensors."""
    is_tensor = any(
        re.fullmatch(rf"{folder}{prefix}[0-9]{{1,9}}", name) for folder, prefix in PREFIXES.items()
    )
    return is_tensor or name in (PROGRAM, *FORMAT, *CONFIGS) or bool(LEFT_OUT.fullmatch(name))
