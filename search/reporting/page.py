"""The frame of `report.html`: style, script and shell, all inline, nothing loaded from anywhere."""

from __future__ import annotations

from html import escape

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy: browsers hold the file to working offline and calling nobody."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1d1f21; --soft: #5d646b; --line: #dfe2e5;
  --blue: #0060a0; --good: #00714f; --bad: #b00020; --mark: #fff4d6; --stripe: #f4f6f7; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181b; --card: #1d2125; --ink: #e6e8ea; --soft: #a2abb3; --line: #363d44;
  --blue: #6cb8f0; --good: #4fd1a5; --bad: #ff8a94; --mark: #453812; --stripe: #23282d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 84rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
.sub { color: var(--soft); margin: 0 0 1rem; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; margin: 0 0 1rem; }
.stamp { background: #b00020; color: #fff; font-weight: 700; text-align: center;
  padding: .7rem 1rem; position: sticky; top: 0; z-index: 2; }
.verdict { font-size: 1.15rem; font-weight: 600; border-left: 5px solid var(--soft);
  padding-left: .8rem; margin: 0 0 1rem; }
.better { border-color: var(--good); } .worse { border-color: var(--bad); }
.failed, li.alarm { color: var(--bad); }
.scroll { overflow-x: auto; margin: 0 0 .8rem; }
.tall { max-height: 34rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
.wide { min-width: 100%; }
th, td { text-align: left; padding: .32rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
thead th { background: var(--card); vertical-align: bottom; }
table.fit thead th { white-space: normal; max-width: 7.5em; }
.tall th { position: sticky; top: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--stripe); }
tr.marked, tbody tr.marked:nth-child(even) { background: var(--mark); }
small { color: var(--soft); display: block; white-space: nowrap; }
p, li, .verdict, figcaption { max-width: 60rem; }
td.text { min-width: 12rem; overflow-wrap: anywhere; } .wide td.text { min-width: 18rem; }
th button { all: unset; cursor: pointer; } th button:hover { color: var(--blue); }
th button:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
input { font: inherit; width: 100%; max-width: 24rem; padding: .4rem .6rem; margin: 0 0 .6rem;
  color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: 6px; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .9rem; margin: .4rem 0; }
img { max-width: 100%; height: auto; border-radius: 6px; background: #fff; display: block; }
summary { cursor: pointer; color: var(--blue); } details > .scroll { margin-top: .6rem; }
ul { padding-left: 1.2rem; margin: .4rem 0; } li { overflow-wrap: anywhere; }
nav { margin: 0 0 1rem; } nav a { color: var(--blue); margin-right: 1rem; }
@media (max-width: 40rem) { main { padding: .6rem; } section { padding: .7rem; }
  th, td { padding: .3rem .35rem; } .wide td.text { min-width: 16rem; }
  table.fit { font-size: .78rem; } table.fit th { font-size: .66rem; }
  table.fit th, table.fit td { padding: .3rem .2rem; }
  table.fit td.n, table.fit small { white-space: normal; } table.fit small { font-size: .68rem; } }
@media print { .stamp, .tall th { position: static; } .tall { max-height: none; } }
"""

SCRIPT = """
document.querySelectorAll("table.sortable").forEach(function (table) {
  var body = table.tBodies[0], heads = table.tHead.rows[0].cells;
  Array.prototype.forEach.call(heads, function (head, column) {
    head.querySelector("button").addEventListener("click", function () {
      var down = head.getAttribute("aria-sort") === "ascending";
      Array.prototype.forEach.call(heads, function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      function value(row) {
        var cell = row.cells[column], key = cell.getAttribute("data-key");
        return key === null ? cell.textContent.toLowerCase() : key === "" ? null : Number(key);
      }
      Array.from(body.rows).sort(function (a, b) {
        var x = value(a), y = value(b);
        if (x === null || y === null) { return (x === null) - (y === null); }
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
var filter = document.getElementById("filter");
if (filter) {
  filter.addEventListener("input", function () {
    var words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean), count = 0;
    Array.prototype.forEach.call(document.getElementById("trials").tBodies[0].rows, function (row) {
      var text = row.textContent.toLowerCase();
      row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
      count += row.hidden ? 0 : 1;
    });
    document.getElementById("matches").textContent = count + " shown";
  });
}
"""


def page(title: str, body: str) -> str:
    """Return a whole HTML document.

    Args:
        title: Plain text.
        body: HTML, already escaped.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{body}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
