"""Work that takes longer than a request: threads with a progress that pages show.."""
