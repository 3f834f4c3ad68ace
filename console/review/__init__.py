"""Identity review: which exact item a crop shows, proposed by a gallery and decided by people."""
