"""The style of the report page: light and dark, readable on a phone, as the evaluation report of the trainer."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --paper: #fbfbf9; --card: #fff; --line: #e2e4e6;
  --good: #1f7a4d; --bad: #c0392b; --warn: #8a5a00; --mark: #2b62c9; --bar: #2b62c955; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --soft: #9aa4af; --paper: #14171a; --card: #1c2024;
  --line: #30363c; --good: #4cc38a; --bad: #ff7a6b; --warn: #e3b341; --mark: #7aa7ff; --bar: #7aa7ff55; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .4rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { color: var(--soft); margin: 0 0 .9rem; max-width: 60rem; overflow-wrap: anywhere; }
a { color: var(--mark); }
section, main > details { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; margin-top: 1rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
main > details > summary { font-weight: 600; font-size: 1.15rem; }
main > details > summary span { font-weight: 400; font-size: .9rem; color: var(--soft); margin-left: .5rem; }
main > details[open] > summary { margin-bottom: .6rem; }
details details { margin: .4rem 0; }
details details summary { color: var(--mark); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .7rem; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.tiles b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tiles span, small, figcaption { color: var(--soft); font-size: .82rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: min(100%, 34rem); }
th, td { padding: .35rem .7rem; border-top: 1px solid var(--line); text-align: right; vertical-align: top; }
td { white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; position: sticky; left: 0; background: var(--card); }
thead th { border-top: 0; color: var(--soft); font-weight: 500; }
td.text { text-align: left; white-space: normal; min-width: 12rem; }
td.text small { display: block; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; } .warn { color: var(--warn); }
.best { font-weight: 600; }
svg { width: 8rem; height: .7rem; display: inline-block; vertical-align: middle; }
svg rect { fill: var(--bar); } svg .best { fill: var(--mark); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .9rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
figure img { width: 100%; height: 13rem; object-fit: contain; background: #8882; display: block; }
.scenes { grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); }
.scenes figure img { height: 16rem; }
figcaption { padding: .5rem .6rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
.key { font-weight: 600; } .only-fp32 { color: #1f78dc; } .only-form { color: #e66414; }
@media print { main > details { break-inside: avoid; } }
"""
