"""Sets of pictures: where they lie, what objects they show, and thumbnails of them."""
