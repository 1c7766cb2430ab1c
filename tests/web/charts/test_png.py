"""Pictures in pixels."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from wherefrom.analysis import Verdict
from wherefrom.web.charts import draw
from wherefrom.web.charts.picture import NoFontError, to_png

from .comparisons import judged, make_comparison, make_row
from .svg import HOSTILE

SVG = draw(make_comparison(make_row("1.0"), judged(HOSTILE, Verdict.WORSE)))


def size(png: bytes) -> tuple[int, ...]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def test_a_picture_is_twice_as_large_in_pixels() -> None:
    width, height = size(to_png(SVG))
    assert width == 2000
    assert height > 500


def test_without_fonts_it_is_refused_rather_than_left_blank() -> None:
    with pytest.raises(NoFontError, match="no font is installed"):
        to_png(SVG, with_system_fonts=False)


def test_without_the_renderer_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['resvg_py'] = None\n"
        "from wherefrom.web.charts.picture import to_png\n"
        "try: to_png('<svg/>')\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a picture as PNG needs an optional dependency: pip install 'wherefrom[ui]'\n"
