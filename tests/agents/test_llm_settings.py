"""What may be written about models in search.yaml, what it costs, and what is never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmzero_hpc.agents.llm.ledger import dollars, estimate, guessed
from llmzero_hpc.cli.main import app
from llmzero_hpc.config import load, load_text
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.sections import LanguageModelAgents, PlaybookAgents, Prices
from llmzero_hpc.store.agent_calls import Usage

HEAD = "name: x\nmodel: none\ntrainer: rehearsal\ntask: {name: chains}\n"


def agents(text: str) -> PlaybookAgents | LanguageModelAgents:
    return load_text(f"{HEAD}agents: {text}\n", "search.yaml").agents


def refused(text: str) -> tuple[str, str]:
    with pytest.raises(ConfigurationError) as told:
        load_text(f"{HEAD}{text}\n", "search.yaml")
    return told.value.message, told.value.next_step


def test_an_address_and_a_model_are_enough() -> None:
    found = agents("{base_url: 'https://api.example.org/v1/', model: large}")
    assert isinstance(found, LanguageModelAgents)
    assert (found.kind, found.base_url, found.fallback) == ("llm", "https://api.example.org/v1", "playbook")
    assert isinstance(agents("{}"), PlaybookAgents)
    assert isinstance(agents("{kind: playbook}"), PlaybookAgents)


@pytest.mark.parametrize(
    ("text", "message", "next_step"),
    [
        ("{model: large}", "agents.base_url is missing", "search-yaml"),
        ("{base_url: 'http://a/v1'}", "agents.model is missing", "search-yaml"),
        ("{kind: lmm}", "agents.kind: 'lmm' is unknown", "did you mean 'llm'?"),
        ("{kind: playbook, vision: true}", "unknown key 'agents.vision'", "known: kind"),
        ("{base_url: 'http://a/v1', model: m, fallbak: wait}", "unknown key 'agents.fallbak'", "'fallback'?"),
        ("{base_url: 'http://a/v1', model: m, timeout_seconds: 9999}", "9999 is above 1800", ""),
        (
            "{base_url: 'http://a/v1', model: m, fallback: none}",
            "agents.fallback: 'none' is unknown",
            "known: playbook",
        ),
        ("{base_url: 'http://a/v1', model: m, prices: {input: 1}}", "agents.prices.output is missing", ""),
        ("{base_url: api.example.org, model: m}", "agents.base_url is no http or https address", "https://"),
        ("{base_url: 'ftp://a/v1', model: m}", "agents.base_url is no http or https address", "https://"),
    ],
)
def test_a_mistake_is_told(text: str, message: str, next_step: str) -> None:
    told = refused(f"agents: {text}")
    assert message in told[0]
    assert next_step in told[1]


@pytest.mark.parametrize("url", ["https://me:hunter22@a/v1", "https://a/v1?key=hunter22", "https://a/v1#hunter22"])
def test_a_secret_in_the_address_is_refused_and_not_shown(url: str) -> None:
    told = refused(f"agents: {{base_url: '{url}', model: m}}")
    assert "agents.base_url holds more than host and path" in told[0]
    assert "hunter22" not in "".join(told)


@pytest.mark.parametrize("key", ["sk-proj-abc123", "0a1b2c3d4e5f", "Bearer x", "A" * 80])
def test_a_key_in_place_of_its_variable_is_refused_and_not_shown(key: str) -> None:
    told = refused(f"agents: {{base_url: 'http://a/v1', model: m, api_key_env: '{key}'}}")
    assert "no name of an environment variable" in told[0]
    assert key not in "".join(told)


@pytest.mark.parametrize("key", ["sk-proj-abc123", "0a1b2c3d4e5f"])
def test_a_key_in_place_of_its_file_is_refused_and_not_shown(key: str) -> None:
    told = refused(f"agents: {{base_url: 'http://a/v1', model: m, api_key_file: '{key}'}}")
    assert "agents.api_key_file is no path" in told[0]
    assert key not in "".join(told)


def test_a_key_is_in_one_place(tmp_path: Path) -> None:
    both = "base_url: 'http://a/v1', model: m, api_key_env: MY_KEY, api_key_file: ./key"
    assert "api_key_file does not go with agents.api_key_env" in refused(f"agents: {{{both}}}")[0]
    served = f"agents: {{serve: {{model: {tmp_path}}}, api_key_file: ./key}}"
    assert "api_key_file does not go with agents.serve" in refused(served)[0]


def test_money_can_only_be_capped_where_it_is_counted() -> None:
    told = refused("budget: {api_dollars: 5}\nagents: {base_url: 'http://a/v1', model: m}")
    assert "budget.api_dollars needs agents.prices" in told[0]
    load_text(f"{HEAD}budget: {{api_dollars: 5}}\n", "search.yaml")


def test_own_files_are_found_from_the_folder_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = tmp_path / "search.yaml"
    for path, place in (("./key", tmp_path / "key"), ("~/key", tmp_path / "home" / "key"), ("/a/key", Path("/a/key"))):
        file.write_text(f"{HEAD}agents: {{base_url: 'http://a/v1', model: m, prompts: mine, api_key_file: {path}}}\n")
        found = load(file).agents
        assert isinstance(found, LanguageModelAgents)
        assert found.prompts == tmp_path / "mine"
        assert found.api_key_file == place


def test_what_a_reply_costs() -> None:
    prices = Prices(input=2.0, output=10.0, cached_input=0.5, image=4.0)
    usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=600, image_tokens=300)
    assert dollars(usage, prices) == pytest.approx((100 * 2 + 600 * 0.5 + 300 * 4 + 100 * 10) / 1e6)
    assert dollars(usage, Prices(input=2.0, output=10.0)) == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
    assert dollars(usage, None) == 0.0
    odd = Usage(input_tokens=10, output_tokens=0, cached_tokens=50, image_tokens=50)
    assert dollars(odd, prices) == pytest.approx(10 * 0.5 / 1e6), "parts are never more than the whole"
    assert guessed(4000, 2, 400).estimated


def test_an_estimate_leaves_out_whom_the_playbook_plays() -> None:
    text = "{base_url: 'http://a/v1', model: m, vision: false, prices: {input: 1, output: 1}"
    every, some = agents(text + "}"), agents(text + ", early_stopper: playbook}")
    assert isinstance(every, LanguageModelAgents)
    assert isinstance(some, LanguageModelAgents)
    whole, less = estimate(every, 15, 100, 3), estimate(some, 15, 100, 3)
    assert (whole.calls, less.calls) == (118, 18)
    assert whole.dollars is not None
    assert less.dollars is not None
    assert whole.dollars > less.dollars > 0
    free = agents("{base_url: 'http://a/v1', model: m}")
    assert isinstance(free, LanguageModelAgents)
    assert estimate(free, 15, 100, 3).dollars is None
    assert estimate(free, 15, 100, 3).input_tokens > whole.input_tokens, "pictures are tokens"


def test_a_dry_run_says_what_calls_may_come_to(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    prices = "prices: {input: 3, output: 15}"
    file.write_text(f"{HEAD}agents: {{base_url: 'http://127.0.0.1:9/v1', model: m, {prices}}}\n")
    command = ["run", str(file), "--dry-run", "--state", str(tmp_path / "state")]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert "language model: up to" in said.output
    plan = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert plan["language_models"]["dollars"] > 0
