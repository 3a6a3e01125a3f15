"""A headless Chromium for tests, driven by Selenium; and Nu, the HTML checker. Each says why it cannot be had."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Where `make test` puts the packages of tests/browser/package.json: beside the interpreter's own.
TOOLS = Path(sys.prefix) / "browser" / "node_modules"
AXE = TOOLS / "axe-core" / "axe.min.js"
NU = TOOLS / "vnu-jar" / "build" / "dist" / "vnu.jar"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
JAVA = shutil.which("java")

# Nu reads a policy before the text that a hash allows; that the browser obeys and allows it, another test sees.
UNJUDGED = ("Inline script violates Content Security Policy", "Inline style violates Content Security Policy")


def without_browser() -> str:
    """Why there is no browser; empty where there is one."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    found = {"chromium": CHROMIUM, "chromedriver": DRIVER}
    return " and ".join(f"no {name}" for name, path in found.items() if path is None)


def without_axe() -> str:
    return "" if AXE.is_file() else f"no axe-core in {TOOLS}; npm installs it"


def without_nu() -> str:
    if JAVA is None:
        return "no java"
    return "" if NU.is_file() else f"no vnu-jar in {TOOLS}; npm installs it"


def validity(paths: Sequence[Path]) -> list[str]:
    """What Nu finds wrong with HTML files, style included, errors and warnings alike."""
    assert JAVA is not None
    done = subprocess.run(
        [JAVA, "-jar", str(NU), "--stdout", "--exit-zero-always", "--format", "json", *map(str, paths)],
        capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)["messages"]
    return [
        f"{Path(one.get('url', '')).name}:{one.get('lastLine')}: {one['message']} {one.get('extract', '')[:120]}"
        for one in found
        if not one["message"].startswith(UNJUDGED)
    ]


class Browser:
    """One window. What it asked the network for, and what it complained of, is kept since the last `open`."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in ("--headless=new", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"):
            options.add_argument(flag)
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium's own refuses root
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Service(DRIVER))
        self.show(1440, 900, "light")

    def close(self) -> None:
        self.driver.quit()

    def command(self, name: str, **values: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, values)

    def show(self, width: int, height: int, theme: str) -> None:
        """The size of the window, and the theme that the system asks for."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def open(self, path: Path, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.requests(), self.complaints()
        self.driver.get(path.resolve().as_uri() + fragment)

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        events = (json.loads(one["message"])["message"] for one in self.driver.get_log("performance"))
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the console says: errors of scripts, and what the content policy stopped."""
        return [one["message"] for one in self.driver.get_log("browser")]

    def audit(self) -> list[str]:
        """What axe finds wrong with the page as it stands, all of its rules asked."""
        self.run(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const [done] = arguments; axe.run({resultTypes: ['violations']}).then((it) => done(it.violations))"
        )
        return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]}" for one in found]

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A screenshot of the window, or of the whole page."""
        size = (
            self.run("const root = document.documentElement; return [innerWidth, root.scrollHeight]") if whole else None
        )
        clip = {"clip": {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}} if size else {}
        data = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)["data"]
        path.write_bytes(base64.b64decode(data))
