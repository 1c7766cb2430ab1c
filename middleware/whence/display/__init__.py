"""How values are shown, on a terminal and on a page: text of strangers made safe, units, times."""
