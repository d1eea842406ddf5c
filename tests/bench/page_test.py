#!/usr/bin/env python3
"""page_test.py PNODE FOLDER_OF_THE_BENCHMARKS: measures as little as makes every chart, has `pnode bench` render it,
and opens the page in a headless browser: are the charts there, drawn, and inside their frames?

Where there is no chromium-headless-shell or chromium the page is parsed instead, and the output says so."""
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

CHARTS = 6  # throughput against near limit, two of latency, ratio against fault, far bytes by codec and by corpus

# Runs in the page and leaves what it found where --dump-dom shows it.
PROBE = """<script>
const found = {charts: [], outside: []};
for (const svg of document.querySelectorAll('svg')) {
  const frame = svg.getBoundingClientRect();
  const chart = {title: svg.querySelector('title').textContent, width: frame.width, height: frame.height,
                 curves: 0, bars: 0, spots: 0, lost: 0};
  for (const drawn of svg.querySelectorAll('polyline, rect, circle, text, line')) {
    const box = drawn.getBoundingClientRect();
    if (drawn.tagName === 'polyline' && drawn.getTotalLength() > 0) ++chart.curves;
    if (drawn.tagName === 'rect' && box.width > 0) ++chart.bars;
    if (drawn.tagName === 'circle' && box.width > 0) ++chart.spots;
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 ||
        box.bottom > frame.bottom + 1) { ++chart.lost; found.outside.push(drawn.outerHTML); }
  }
  found.charts.push(chart);
}
found.resources = performance.getEntriesByType('resource').map(entry => entry.name);
found.rows = document.querySelectorAll('tr').length;
document.body.setAttribute('data-found', JSON.stringify(found));
</script>"""


def lines_of(folder, program, *arguments):
    command = [os.path.join(folder, program), "--json", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def render(pnode, folder, scratch):
    tiny = ("--pages", "1024", "--accesses", "1000", "--rounds", "1", "--threads", "1", "--cases", "read-uniform")
    lines = lines_of(folder, "pnode-bench-churn", *tiny)
    lines += lines_of(folder, "pnode-bench-churn", *tiny, "--near-percent", "40,80")
    lines += lines_of(folder, "pnode-bench-fault", "--pages", "256", "--rounds", "1", "--threads", "1", "--cases", "far")
    few = ("--codecs", "lz4,zstd:1", "--block-kib", "4,16", "--pages", "256", "--rounds", "1", "--no-zram")
    lines += lines_of(folder, "pnode-bench-codec", *few, "--corpora", "json")
    lines += lines_of(folder, "pnode-bench-codec", *few, "--corpora", "json,zeros,random")
    source, out = os.path.join(scratch, "lines"), os.path.join(scratch, "page")
    with open(source, "w", encoding="utf-8") as file:
        file.write(lines)
    subprocess.run([pnode, "bench", "--from", source, "--out", out], check=True, capture_output=True, timeout=60)
    with open(out + ".html", encoding="utf-8") as file:
        return file.read(), lines


def opened_in(browser, page, scratch):
    """What the probe found when `browser` opened the page."""
    path = os.path.join(scratch, "probed.html")
    with open(path, "w", encoding="utf-8") as file:
        file.write(page.replace("</body>", PROBE + "</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={scratch}/profile", "--dump-dom",
               "file://" + path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, "the browser's document lacks the probe's finding:\n" + done.stdout[:2000] + done.stderr[-2000:]
    return json.loads(html.unescape(found.group(1)))


def check_opened(found):
    assert len(found["charts"]) == CHARTS, found["charts"]
    for chart in found["charts"]:
        assert chart["width"] > 300 and chart["height"] > 100, chart
        assert chart["curves"] + chart["bars"] + chart["spots"] > 0, f"nothing drawn: {chart}"
        assert chart["lost"] == 0, f"drawn outside its frame: {found['outside'][:3]}"
    assert found["resources"] == [], f"loads from outside: {found['resources']}"
    assert found["rows"] > 20, found["rows"]


class Elements(html.parser.HTMLParser):
    """Everything is closed, and nothing refers to another file."""
    VOID = {"meta", "br", "img", "link", "input", "hr"}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            assert name not in ("src", "href", "srcset"), f"{tag} refers to {value}"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def check_parsed(page):
    elements = Elements()
    elements.feed(page)
    assert not elements.open, elements.open
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == CHARTS, len(charts)
    for chart in charts:
        names = [element.tag.split("}")[1] for element in xml.etree.ElementTree.fromstring(chart).iter()]
        assert {"polyline", "rect", "circle"} & set(names), chart[:300]


def check_results(page, lines):
    """The numbers are in the page, all of them."""
    embedded = re.search(r'<script type="application/jsonl" id="results">\n(.*?)</script>', page, re.DOTALL).group(1)
    kept = [json.loads(line) for line in embedded.splitlines()]
    assert kept == [json.loads(line) for line in lines.splitlines()], "the page's results are not what was measured"


def main():
    pnode, folder = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        page, lines = render(pnode, folder, scratch)
        check_parsed(page)
        check_results(page, lines)
        browser = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        if browser:
            check_opened(opened_in(browser, page, scratch))
            print("opened with " + browser)
        else:
            print("no headless browser here: the page was only parsed (apt-get install chromium-headless-shell)")


main()
