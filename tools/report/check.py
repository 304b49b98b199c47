#!/usr/bin/env python3
"""Opens reports in headless Chromium, light and dark: nothing is said on the console, each plot is there, none is empty.

    tools/report/check.py FILE...      pages of `pollux-perf report`

Installs Debian's chromium and chromium-driver where they are missing, which takes root. With SHOTS=FOLDER it leaves
screenshots there.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

# For each plot: its name, the number of its curves and bands, and the smallest extent of what they draw.
PLOTS = """return Array.from(document.querySelectorAll('svg.plot')).map(plot => {
  const drawn = Array.from(plot.querySelectorAll('.curve, .band')).map(path => path.getBBox());
  const frame = plot.getBoundingClientRect();
  return [plot.id, drawn.length, Math.max(...drawn.map(box => box.width)), frame.width, frame.height];
})"""


def install():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        packages = ["chromium", "chromium-driver", "fonts-dejavu-core"]
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], check=True)


class Browser:
    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
        for _ in range(100):
            try:
                self.ask("GET", "/status")
                break
            except OSError:
                time.sleep(0.1)
        options = {
            "goog:chromeOptions": {"args": ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,2400"]},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self.session = f"/session/{session['sessionId']}"

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def do(self, method, path, body=None):
        return self.ask(method, self.session + path, body)

    def end(self):
        self.do("DELETE", "")
        self.driver.terminate()
        self.driver.wait()


def check(browser, file, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": [feature]}}
    browser.do("POST", "/goog/cdp/execute", command)
    browser.do("POST", "/url", {"url": "file://" + os.path.abspath(file)})
    run = lambda script: browser.do("POST", "/execute/sync", {"script": script, "args": []})
    plots = run(PLOTS)
    names = [plot[0] for plot in plots if not plot[0].startswith("jobs")]
    assert names[:4] == ["percentiles", "iops", "p99", "paths"], f"{file}: {names}"
    for name, curves, extent, width, height in plots:
        assert curves > 0 and extent > 100, f"{file}: {name} is empty"
        assert width > 400 and height > 100, f"{file}: {name} is {width} x {height}"
    said = browser.do("POST", "/se/log", {"type": "browser"})
    assert not said, f"{file}: {said}"
    paper = run("return getComputedStyle(document.body).backgroundColor")
    if shots := os.environ.get("SHOTS"):
        shot = browser.do("GET", "/screenshot")
        with open(os.path.join(shots, f"{os.path.basename(file)}.{scheme}.png"), "wb") as out:
            out.write(base64.b64decode(shot))
    return len(plots), paper


def main():
    install()
    browser = Browser()
    try:
        for file in sys.argv[1:]:
            plots, light = check(browser, file, "light")
            _, dark = check(browser, file, "dark")
            assert light != dark, f"{file}: {light} in light and dark"
            print(f"{file}: {plots} plots, light and dark")
    finally:
        browser.end()


if __name__ == "__main__":
    main()
