#!/usr/bin/env python3
"""Draws terminal output as an SVG picture: `make demo | tee demo.txt; terminal-svg.py TITLE < demo.txt`."""
import html
import sys

CELL_W, CELL_H, PAD, BAR = 8.43, 19, 18, 34

def main() -> None:
    title = sys.argv[1] if len(sys.argv) > 1 else "terminal"
    lines = [line.rstrip("\n") for line in sys.stdin]
    width = PAD * 2 + max(len(line) for line in lines) * CELL_W
    height = BAR + PAD * 2 + len(lines) * CELL_H
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
          f'viewBox="0 0 {width:.0f} {height}" role="img" aria-label="{html.escape(title)}">')
    print(f'<rect width="100%" height="100%" rx="8" fill="#161b22"/>')
    for i, color in enumerate(("#ff5f56", "#ffbd2e", "#27c93f")):
        print(f'<circle cx="{PAD + i * 20}" cy="18" r="6" fill="{color}"/>')
    print(f'<text x="{width / 2:.0f}" y="22" fill="#8b949e" text-anchor="middle" '
          f'font-family="sans-serif" font-size="12">{html.escape(title)}</text>')
    print('<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14" '
          'xml:space="preserve">')
    for row, line in enumerate(lines):
        color = "#7ee787" if line.startswith("==") else "#e6edf3"
        y = BAR + PAD + row * CELL_H
        print(f'<text x="{PAD}" y="{y}" fill="{color}" xml:space="preserve">{html.escape(line)}</text>')
    print("</g></svg>")

if __name__ == "__main__":
    main()
