"""Contact sheets of training pictures."""

from __future__ import annotations

import numpy as np

from trainer.contact_sheet import tile


def test_pictures_are_laid_out_in_rows_on_white():
    page = tile([np.full((20, 48, 3), 10 * n, np.uint8) for n in range(5)], columns=2)
    assert page.shape == (3 * (20 + 6) + 6, 2 * (48 + 6) + 6, 3)
    assert (page[6:26, 60:108] == 10).all()
    assert (page[58:78, 6:54] == 40).all()
    assert (page[58:, 60:] == 255).all()
