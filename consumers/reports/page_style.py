"""The style of the report page: light, dark, forced colours, print, 320 px; contrast 4.5:1 of text, 3:1 of marks."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--ink:#1a1c20;--soft:#4d535e;--ground:#fff;--line:#7b8290;--bar:#1f66b1;--neg:#b3402a}
@media(prefers-color-scheme:dark){:root{--ink:#eceef2;--soft:#b3bac6;--ground:#14161a;--line:#8a92a0;--bar:#6aa9ee;
--neg:#ee8a73}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.2rem;margin:2rem 0 .3rem}
a{color:var(--bar)}nav p{font-size:.9rem}
.finding{font-weight:600;margin:.2rem 0 .8rem}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.6rem;margin:1rem 0}
dl div{border:1px solid var(--line);border-radius:.4rem;padding:.5rem .7rem}
dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
.bars{list-style:none;margin:0;padding:0}
.bars li{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;margin:.35rem 0}
.num{color:var(--soft);font-variant-numeric:tabular-nums}
svg{display:block}.bar,.open{fill:var(--bar)}.neg{fill:var(--neg)}
.open{fill-opacity:.35;stroke:var(--bar);stroke-width:1.5;stroke-dasharray:4 3}
.span{stroke:var(--ink);stroke-width:2}.interval{stroke:var(--soft);stroke-width:4}.axis{stroke:var(--line);stroke-width:1}
.ends{display:flex;justify-content:space-between;color:var(--soft);font-size:.85rem;margin:.2rem 0}
details{margin:.6rem 0}summary{cursor:pointer;padding:.3rem 0}
summary:focus-visible,.wide:focus-visible{outline:3px solid var(--bar);outline-offset:2px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;
overflow-wrap:normal}
th[scope=row]{font-weight:400;min-width:7rem;max-width:24rem;overflow-wrap:anywhere}.n{text-align:right;white-space:nowrap}
footer{margin-top:2rem;border-top:1px solid var(--line);color:var(--soft)}
@media(forced-colors:active){.bar,.neg{fill:CanvasText}.open{fill:none;stroke:CanvasText}.span,.interval{stroke:Highlight}}
@media print{:root{--ink:#000;--soft:#333;--ground:#fff;--line:#777;--bar:#1f66b1;--neg:#b3402a}
main{max-width:none;padding:0}section{break-inside:avoid}}
""".replace("\n", "")
STYLE_HASH = f"sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}"
"""Of the style, for a Content-Security-Policy."""
