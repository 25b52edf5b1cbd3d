"""Building blocks of the pages: layout, charts, sliders, texts, with their scripts and styles."""
