"""The style sheet of reports: system fonts, two colour schemes, colours told apart also without red and green."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--bg:#fbfbf9;--card:#fff;--ink:#1c1d21;--muted:#686c76;--line:#e4e4df;--grid:#ecece7;
--a:#2457d6;--b:#d9730d;--c:#7a5af0;--soft:#2457d61c;--bare:#f0f0ec;--good:#0f7b4f;--bad:#c22f2f}
@media (prefers-color-scheme:dark){:root{--bg:#121317;--card:#1a1c21;--ink:#e9e9ec;--muted:#9a9ea9;--line:#2d3038;
--grid:#272a31;--a:#7ea6ff;--b:#ffae57;--c:#b7a2ff;--soft:#7ea6ff26;--bare:#24272e;--good:#56d19b;--bad:#ff8080}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer,section.skipped{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:36px}
h1{font-size:28px;line-height:1.2;margin:2px 0 14px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:19px;margin:0 0 14px;overflow-wrap:anywhere}
h3{font-size:15px;margin:24px 0 8px}
.kicker{margin:0;color:var(--a);font-weight:600;letter-spacing:.02em}
.muted,footer{color:var(--muted)}
h2 .muted{font-weight:400}
p.muted{margin:0 0 8px}
.facts{display:flex;flex-wrap:wrap;gap:6px 28px;margin:0 0 8px}
.facts div{display:flex;gap:6px;min-width:0}
.facts dt{color:var(--muted)}
.facts dd{margin:0;overflow-wrap:anywhere}
main>section,section.skipped{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:22px 24px;
margin:20px 0}
section.skipped{margin:20px auto;max-width:1132px;border-color:var(--bad)}
section.skipped h2{margin:0 0 6px}
section.skipped ul{margin:0;padding-left:18px}
.badge{font-size:12px;font-weight:600;padding:3px 9px;border-radius:99px;background:var(--soft);color:var(--a);
vertical-align:2px;margin-right:4px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(136px,1fr));gap:10px;margin:0 0 18px}
.tiles div{border:1px solid var(--line);border-radius:9px;padding:10px 12px}
.tiles dt,.tiles small{color:var(--muted);font-size:12.5px;line-height:1.35;display:block}
.tiles dd{margin:1px 0;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
.tiles dd span{font-size:14px;line-height:30px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:14px}
.pictures{display:grid;gap:10px;margin:0 0 12px;grid-template-columns:repeat(auto-fill,minmax(min(250px,100%),1fr))}
@media (min-width:900px){.n4{grid-template-columns:repeat(4,1fr)}.n3{grid-template-columns:repeat(3,1fr)}
.n2{grid-template-columns:repeat(2,1fr)}}
figure{margin:0;min-width:0}
img{display:block;width:100%;height:auto;border-radius:6px;background:var(--bare)}
img.stretch{height:170px;object-fit:fill}
audio{width:100%;height:34px;margin-top:6px}
figcaption{color:var(--muted);font-size:12.5px;margin-top:4px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13.5px}
th,td{padding:5px 9px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{color:var(--muted);font-weight:500;vertical-align:bottom;white-space:normal}
tbody th{font-weight:500}
th:first-child{text-align:left;padding-left:0}
tr.reference th,tr.reference td{color:var(--b)}
td.marks{text-align:left;white-space:normal}
tbody tr:last-child>*{border-bottom:0}
.sheet{margin-bottom:14px}
.sheet th,.sheet td{border:0;padding:2px 3px;text-align:center}
.sheet tbody th{text-align:left;padding-right:10px}
.sheet td{min-width:84px}
.sheet img{border-radius:3px}
details{margin-top:18px}
summary{cursor:pointer;font-weight:600;margin-bottom:6px}
a{color:inherit;text-decoration-color:var(--line);text-underline-offset:3px}
a:hover{color:var(--a)}
.chip{display:inline-block;font-size:12.5px;color:var(--muted);padding:0 8px 0 0}
.chip b{color:var(--ink)}
.chip.good{color:var(--good);font-weight:600}
.chip.bad{color:var(--bad);font-weight:700}
svg{display:block;width:100%;height:auto;overflow:visible}
svg.usage{width:220px;height:34px;margin-left:auto}
svg text{font:11.5px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--muted)}
svg .strong{fill:var(--ink);font-weight:600}
.grid{stroke:var(--grid);stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.dot{stroke:var(--card);stroke-width:1.5}
.broad{fill:none;stroke:var(--muted);stroke-width:4;stroke-opacity:.38;stroke-linejoin:round}
.thin{fill:none;stroke-width:1.2;stroke-linejoin:round}
.bare{fill:var(--bare)}
.s0.line,.s0.thin{stroke:var(--a)}.s0.dot,.s0.area{fill:var(--a)}
.s1.thin{stroke:var(--b)}.s2.thin{stroke:var(--c)}
.s1.line{stroke:var(--b);stroke-dasharray:5 4}.s1.dot{fill:var(--b)}
.s2.line{stroke:var(--c)}.s2.dot{fill:var(--c)}
footer{padding-bottom:48px;font-size:13px}
@media print{body{background:#fff}main>section{break-inside:avoid}}
"""
