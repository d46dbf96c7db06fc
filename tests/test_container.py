"""The image, and what runs beside it: there is no container engine in the suite, so linters and the steps by hand stand
in for it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtest.servers import free_port
from tests.support.harness import ROOT, START_S, Client

DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
HADOLINT = Path(sys.executable).parent / "hadolint"
COMPOSE = (ROOT / "compose.yaml").read_text()


def steps(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)


def command(instruction: str) -> list[str]:
    """The last one of this instruction, as a list of words."""
    words: list[str] = json.loads(re.search(rf"^{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])  # type: ignore[index]
    return words


def sources() -> list[str]:
    """What is copied from the checkout into the image."""
    copied = [step.split() for step in steps("COPY") if not step.startswith("--from")]
    return [source for words in copied for source in words[:-1]]


@pytest.mark.skipif(not HADOLINT.exists(), reason="no hadolint for this system")
def test_a_linter_finds_nothing_in_the_dockerfile() -> None:
    found = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_compose_file_is_one() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_what_the_compose_file_mounts_is_there() -> None:
    mounted = re.findall(r"- \./(\S+?):", COMPOSE)
    assert "conf/prometheus.yml" in mounted
    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_prometheus_asks_by_a_name_that_is_answered() -> None:
    """Without users a server answers to names of its own machine."""
    (target,) = re.findall(r'targets: \["(\S+):22180"\]', (ROOT / "conf" / "prometheus.yml").read_text())
    assert f"    hostname: {target} " in COMPOSE


def test_all_that_is_published_stays_on_this_machine() -> None:
    published = re.findall(r'- "(\S+:\d+:\d+)"', COMPOSE)
    assert published
    assert [one for one in published if not one.startswith("127.0.0.1:")] == []


def test_what_the_image_needs_is_sent_to_the_engine() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(sources()) == sorted(sent)


@pytest.mark.long
def test_the_steps_of_the_dockerfile_make_a_server_that_is_well(tmp_path: Path) -> None:
    source, image, data = tmp_path / "src", tmp_path / "opt", tmp_path / "data"
    source.mkdir()
    for name in sources():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (source / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)

    def here(words: str) -> str:
        return words.replace("/opt/darner", str(image)).replace("/data", str(data))

    for step in steps("RUN"):
        if not step.startswith("apt-get"):  # the rest of the image, which needs root on a Debian of its own
            subprocess.run(here(step), shell=True, cwd=source, check=True, stdout=subprocess.DEVNULL)
    shutil.copy(source / "conf" / "healthcheck.py", image)

    port, http = free_port(), free_port()

    def there(words: list[str]) -> list[str]:
        return [here(word).replace("22180", str(http)).replace("0.0.0.0", "127.0.0.1") for word in words]

    entry = there(command("ENTRYPOINT"))
    assert entry[:2] == ["tini", "--"]
    with subprocess.Popen(
        [*entry[2:], *there(command("CMD")), "--port", str(port)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            check = there(command("HEALTHCHECK .*CMD"))
            until = time.monotonic() + START_S
            while subprocess.run(check, capture_output=True).returncode and time.monotonic() < until:
                time.sleep(0.1)
            assert subprocess.run(check, capture_output=True, text=True).returncode == 0, shlex.join(check)
            client = Client(port)
            client.set("q", b"x")
            assert client.get("q") == b"x"
            client.close()
        finally:
            server.terminate()
            log = server.communicate(timeout=10)[0]
        assert server.returncode == 0, log
    gone = subprocess.run(check, capture_output=True, text=True)
    assert gone.returncode == 1
    assert gone.stderr.startswith("no answer: ")
