"""The frame of `report.html`: style, script and shell, all inline, nothing loaded from anywhere."""

from __future__ import annotations

from html import escape

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy: browsers hold the file to working offline and calling nobody."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1d1f21; --soft: #565d64; --line: #dfe2e5;
  --blue: #0060a0; --good: #00714f; --bad: #b00020; --mark: #fff4d6; --stripe: #f4f6f7; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181b; --card: #1d2125; --ink: #e6e8ea; --soft: #a8b1b9; --line: #363d44;
  --blue: #6cb8f0; --good: #4fd1a5; --bad: #ff8a94; --mark: #453812; --stripe: #23282d; }
  .plot img { filter: invert(.9) hue-rotate(180deg); } }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.5rem; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 84rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 0 0 .6rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
.lead { margin: .2rem 0; } .sub { color: var(--soft); margin: 0 0 1rem; overflow-wrap: anywhere; }
.films { border: 2px solid var(--bad); border-radius: 8px; padding: .5rem .8rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; margin: 0 0 1rem; }
article + article { border-top: 1px solid var(--line); margin-top: 1.4rem; padding-top: .2rem; }
.stamp { background: #b00020; color: #fff; font-weight: 700; text-align: center;
  padding: .6rem 1rem; position: sticky; top: 0; z-index: 3; }
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
.tall thead th { position: sticky; top: 0; z-index: 1; }
td.n, th.n { text-align: right; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--stripe); }
tr.marked, tbody tr.marked:nth-child(even) { background: var(--mark); }
small { color: var(--soft); display: block; white-space: nowrap; }
p, li, .verdict, figcaption { max-width: 60rem; }
td.text { min-width: 12rem; overflow-wrap: anywhere; } #trials td.text { min-width: 20rem; }
.pairs th { white-space: normal; max-width: 14rem; }
td.short { white-space: nowrap; } #trials td:first-child { white-space: nowrap; }
#trials thead th { white-space: normal; } #trials th, #trials td { padding: .32rem .4rem; }
th button { all: unset; cursor: pointer; } th button:hover { color: var(--blue); }
:focus-visible, th button:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
th[aria-sort] button::after { content: "\\00a0↕"; opacity: .45; font-size: .75em; }
th[aria-sort=ascending] button::after { content: "\\00a0▲"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\00a0▼"; opacity: 1; }
label { display: block; margin: 0 0 .2rem; }
input { font: inherit; width: 100%; max-width: 24rem; padding: .4rem .6rem; margin: 0 0 .6rem;
  color: inherit; background: var(--paper); border: 1px solid var(--soft); border-radius: 6px; }
figure { margin: 0; } .reading { margin: .2rem 0 .6rem; }
figcaption, .caption { color: var(--soft); font-size: .9rem; margin: .4rem 0; }
img { max-width: 100%; height: auto; border-radius: 6px; background: #fff; display: block; }
summary { cursor: pointer; color: var(--blue); padding: .2rem 0; }
details > .scroll { margin-top: .4rem; }
ul { padding-left: 1.2rem; margin: .4rem 0; } li { overflow-wrap: anywhere; margin: .15rem 0; }
nav { margin: 0 0 1rem; line-height: 1.9; }
a { color: var(--blue); } nav a { margin-right: 1rem; white-space: nowrap; }
@media (min-width: 64rem) { .pictured { display: grid; gap: 1rem;
  grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); } .pictured > :only-child {
  grid-column: 1 / -1; } }
@media (max-width: 40rem) { main { padding: .6rem; } section { padding: .7rem; }
  .stamp { font-size: .85rem; padding: .4rem .6rem; }
  nav { display: flex; overflow-x: auto; } th, td { padding: .3rem .35rem; }
  .tall { max-height: 24rem; } .pairs td.text { min-width: 0; } .pairs th { max-width: 8rem; }
  .plot { overflow-x: auto; } .plot img { max-width: none; width: 34rem; }
  figcaption { position: sticky; left: 0; }
  table.fit { font-size: .8rem; width: 100%; } table.fit th { font-size: .7rem; }
  table.fit th, table.fit td { padding: .3rem .15rem; } table.metrics { table-layout: fixed; }
  table.metrics small { font-size: .7rem; white-space: normal; max-width: 3em; margin-left: auto; }
  table.metrics thead th { font-size: .62rem; } table.metrics th:first-child { width: 4.4rem; } }
@media print { .stamp, .tall thead th { position: static; } .tall { max-height: none; }
  nav, #filter, label { display: none; } section { break-inside: auto; } }
"""

SCRIPT = """
"use strict";
(function () {
  function list(found) { return Array.prototype.slice.call(found); }
  function value(row, column) {
    var cell = row.cells[column], key = cell.getAttribute("data-key");
    return key === null ? cell.textContent.toLowerCase() : key === "" ? null : Number(key);
  }
  function sort(table, column) {
    var heads = list(table.tHead.rows[0].cells), body = table.tBodies[0];
    var down = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach(function (head, i) {
      head.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending");
    });
    list(body.rows).map(function (row, place) {
      return { row: row, place: place, key: value(row, column) };
    }).sort(function (a, b) {
      if (a.key === null || b.key === null) {  // what is missing stays last, both ways
        return (a.key === null) - (b.key === null) || a.place - b.place;
      }
      var order = a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
      return (down ? -order : order) || a.place - b.place;
    }).forEach(function (item) { body.appendChild(item.row); });
  }
  list(document.querySelectorAll("table.sortable")).forEach(function (table) {
    list(table.tHead.rows[0].cells).forEach(function (head, column) {
      head.querySelector("button").addEventListener("click", function () { sort(table, column); });
    });
  });
  var filter = document.getElementById("filter");
  if (filter) {
    var rows = list(document.getElementById("trials").tBodies[0].rows);
    filter.addEventListener("input", function () {
      var words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean), count = 0;
      rows.forEach(function (row) {
        var text = row.textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
        count += row.hidden ? 0 : 1;
      });
      document.getElementById("matches").textContent = count + " of " + rows.length + " shown";
    });
  }
  function open(which) {
    list(document.querySelectorAll(which)).forEach(function (one) { one.open = true; });
  }
  if (window.matchMedia("(min-width: 64rem)").matches) { open("details.beside"); }
  window.addEventListener("beforeprint", function () { open("details"); });
})();
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
