"""Decompresses and decodes recorded bodies, within limits of time and memory.

Only what is recorded is decompressed, so that a small body that expands to gigabytes costs nothing. Brotli
and Zstandard need the extra ``compression``.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Callable, Sequence
from encodings.aliases import aliases
from functools import lru_cache
from typing import Any, Final

Decoded = tuple[bytes, bool]
"""The start of the content, and whether it is the whole content."""
_Decoder = Callable[[bytes, int], Decoded]

_MAX_CODINGS: Final = 3
_MAX_MEMBERS: Final = 16
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP, _ZLIB, _RAW = 31, 15, -15  # the ``wbits`` of zlib
_WINDOW_LOG: Final = 23  # 8 MB, as RFC 9659 allows on the web
# Brotli decompresses a whole block, or its whole window, before it applies a limit.
_MAX_STEP: Final = 1 << 20
_PIECE: Final = 4  # bytes: half as long as the shortest block that fills a large window


def prepare() -> None:
    """Import the libraries at start, because an import is too slow for a request."""
    _brotli_module()
    _zstd_decoder()


def codings_of(header: str) -> list[str]:
    """Return the codings of a ``Content-Encoding``, in the order in which they were applied."""
    names = (name.strip().lower() for name in header.split(","))
    return [name for name in names if name not in {"", "identity"}]


def decompress(data: bytes, is_whole: bool, codings: Sequence[str], limit: int) -> Decoded | None:
    """Return at most ``limit`` bytes of the content; ``None`` if it cannot be read.

    ``is_whole`` is whether ``data`` is the whole compressed body.
    """
    if len(codings) > _MAX_CODINGS:
        return None
    try:
        for coding in reversed(codings):
            # One byte more shows whether there is more content.
            data, is_end = _DECODERS[coding](data, limit + 1)
            is_whole = is_whole and is_end and len(data) <= limit
            data = data[:limit]
    except Exception:  # noqa: BLE001 - each library has errors of its own
        return None
    return (data, is_whole) if data or is_whole else None


def _gzip(data: bytes, limit: int) -> Decoded:
    content, rest = b"", data
    for _ in range(_MAX_MEMBERS):
        member = zlib.decompressobj(_GZIP)
        content += member.decompress(rest, limit - len(content))
        rest = member.unused_data
        if not member.eof or not rest.startswith(_GZIP_MAGIC):
            return content, member.eof
        if len(content) == limit:
            break
    return content, False


def _deflate(data: bytes, limit: int) -> Decoded:
    """Decompress zlib's format, or raw deflate data, which some servers send (RFC 9110, 8.4.1.2)."""
    is_zlib = data[:1] == b"\x78" and int.from_bytes(data[:2], "big") % 31 == 0
    stream = zlib.decompressobj(_ZLIB if is_zlib else _RAW)
    return stream.decompress(data, limit), stream.eof


def _brotli(data: bytes, limit: int) -> Decoded:
    window, block = _brotli_header(data)
    if window > _MAX_STEP and block > _MAX_STEP:
        raise ValueError(block)
    # With a large window, what follows the first block may be larger: a block that has not begun is skipped.
    most = limit if window <= _MAX_STEP else min(limit, block)
    stream, content, place = _brotli_module().Decompressor(), b"", 0
    while place < len(data) and (len(content) < most or len(data) - place <= _PIECE):
        piece = data[place : place + _PIECE] if window > _MAX_STEP else data
        place += len(piece)
        content += stream.process(piece, output_buffer_limit=limit)
        if len(content) >= limit or stream.is_finished():
            break
    return content, stream.is_finished()


def _brotli_header(data: bytes) -> tuple[int, int]:
    """Return the sizes of the window and of the first block in bytes (RFC 7932, sections 9.1 and 9.2)."""
    bits = int.from_bytes(data[:8], "little")
    if not bits & 1:
        log, width = 16, 1
    elif more := bits >> 1 & 7:
        log, width = 17 + more, 4
    else:
        log, width = (8 + more if (more := bits >> 4 & 7) else 17), 7
    bits >>= width
    if bits & 1:  # the last block, which may be empty
        bits >>= 1
        if bits & 1:
            return 1 << log, 0
    bits >>= 1
    nibbles = (bits & 3) + 4
    if nibbles > 6:  # a block of metadata, whose size is not in the header
        return 1 << log, 1 << 24
    return 1 << log, (bits >> 2 & (1 << 4 * nibbles) - 1) + 1


@lru_cache(maxsize=1)
def _brotli_module() -> Any:
    """Return the library, or ``None``. Versions before 1.2 have no limit and reject the argument."""
    try:
        import brotli
    except ImportError:
        return None
    return brotli


def _zstd(data: bytes, limit: int) -> Decoded:
    decoder = _zstd_decoder()
    if decoder is None:
        raise LookupError
    return decoder(data, limit)


@lru_cache(maxsize=1)
def _zstd_decoder() -> _Decoder | None:
    """Return a decoder: of the standard library from 3.14 on, else of one of two packages, or ``None``."""
    for load in (_standard_zstd, _zstandard):
        try:
            return load()
        except ImportError:
            continue
    return None


def _standard_zstd() -> _Decoder:
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}

    def decoded(data: bytes, limit: int) -> Decoded:
        content, rest = b"", data
        for _ in range(_MAX_MEMBERS):
            frame = zstd.ZstdDecompressor(options=options)
            content += frame.decompress(rest, limit - len(content))
            rest = frame.unused_data
            if not frame.eof or not rest:
                return content, frame.eof
            if len(content) == limit:
                break
        return content, False

    return decoded


def _zstandard() -> _Decoder:
    import zstandard

    def decoded(data: bytes, limit: int) -> Decoded:
        frames = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
        with frames.stream_reader(data, read_across_frames=True) as reader:
            content = reader.read(limit)
        return content, 0 < len(content) < limit  # the end of the last frame is not reported

    return decoded


_DECODERS: Final[dict[str, _Decoder]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}

# --- Charsets -----------------------------------------------------------------------------------------------

# Other names are never looked up: Python caches every name, and a client may send any.
_NO_CHARSETS: Final = {
    "base64_codec", "bz2_codec", "hex_codec", "mbcs", "quopri_codec", "rot_13", "uu_codec", "zlib_codec",
}  # fmt: skip
_WITHOUT_ALIAS: Final = (
    "utf_8_sig",
    "koi8_u",
    "koi8_t",
    "cp720",
    "cp737",
    "cp856",
    "cp874",
    "cp875",
    "cp1006",
)
_CHARSETS: Final = frozenset(
    name
    for alias, codec in (*aliases.items(), *((name, name) for name in _WITHOUT_ALIAS))
    if codec not in _NO_CHARSETS
    for name in (alias, codec)
)
_PARAMETER: Final = re.compile(r"""(?i);\s*charset\s*=\s*["']?([^\s;"']{1,40})""")
_DECLARED: Final = re.compile(
    rb"""(?i)<(?:\?xml[^>]{0,100}?\sencoding|meta[^>]{0,200}?\scharset|meta[^>]{0,200}?;\s*charset)"""
    rb"""\s*=\s*["']?([\w.:-]{1,40})"""
)
_DECLARED_WITHIN: Final = 1024
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf_8_sig"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)


def charset_of(content_type: str, data: bytes, *, is_json: bool) -> tuple[str, str | None]:
    """Return the name of a body's charset, and the codec for it; ``None`` if it is unknown.

    It is read from the first of these that has one: the content type, the byte order mark, the declaration
    of XML or HTML. Of JSON it is detected. The default is UTF-8.
    """
    if found := _PARAMETER.search(content_type):
        name = found[1]
    elif is_json:
        name = json.detect_encoding(data)
    elif mark := next((codec for mark, codec in _MARKS if data.startswith(mark)), None):
        name = mark
    elif declared := _DECLARED.search(data, 0, _DECLARED_WITHIN):
        name = declared[1].decode()
    else:
        name = "utf-8"
    return name, _codec(name.lower())


def text_of(data: bytes, codec: str, *, is_whole: bool) -> tuple[str, bool]:
    """Return the text, and whether it is valid, without an incomplete character at its end."""
    make, is_valid = codecs.getincrementaldecoder(codec), True
    try:
        text = make().decode(data, is_whole)
    except UnicodeError:
        text, is_valid = make("replace").decode(data, is_whole), False
    return text.removeprefix("\ufeff"), is_valid


def _codec(name: str) -> str | None:
    spelled = re.sub(r"[^a-z0-9]", "_", name)
    return spelled if spelled in _CHARSETS else None
