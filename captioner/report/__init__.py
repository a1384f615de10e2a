"""An evaluation, told: as a table, as JSON, image by image, and as a page to look at."""
