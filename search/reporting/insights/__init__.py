"""What a run teaches, one insight a module: numbers first, a picture where it helps.

The seam to the report:

- An `Insight` (`insight.py`) is a frozen record: `name` (file stem and anchor), `section`, `title`,
  `reading` (one sentence on what this run shows), `caption` (how to read it), `columns` and `rows`
  (the numbers; every insight has them), and optionally `picture`, a PNG file. `local` is true when
  the picture holds radiographs: shown in the report of the run's own directory and nowhere else.
- `explain.explain(material)` computes every insight that a `Material` (`material.py`) has data
  for, in the order of the report. Pure: nothing is read or written, and nothing drawn.
- `plots.draw_all(root, material, synthetic=…)` saves them: `plots/<name>.json` holds everything but
  the picture, `plots/<name>.png` the picture, if there is one; local ones lie in `plots/local/`,
  which git is told to ignore and the manifest does not list. It returns all files, and removes
  those of an earlier pass; `plots.pictures` picks the PNG files among them.
- `content.gather` reads them back: `RunContent.insights` are all of them in the order of the
  report, tables without a picture and local pictures included. `RunContent.pictures` are as before
  the ones that have a picture to be shown anywhere, i.e. no local ones.

So a report goes over `content.insights`: a heading where `section` changes (its value is the
heading), then title, reading, picture if `picture` is not None, caption, and the table. Pictures
are drawn on white; a dark page may invert them, but not `local` ones.

A run that just ended and `python -m search.report --rebuild` both get their material from
`search.explaining.material(root)`, which also works for runs made before there were insights, and
the heatmaps from `search.explaining.look(root)`, which looks into the exported model.
"""
